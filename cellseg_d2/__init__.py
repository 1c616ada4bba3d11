"""Mask R-CNN instance segmentation of cells in microscopy images, on Detectron2."""

from cellseg_d2.errors import NO_DETECTRON2
from cellseg_d2.io.quiet import quieten

__version__ = "0.1.0"
quieten()  # here, as it must come before any library, in notebooks and in processes that others start


def __getattr__(name: str):
    """``cellseg_d2.CellSegmenter``, without importing PyTorch for those who only want masks and metrics."""
    if name == "CellSegmenter":
        try:
            from cellseg_d2.inference.model import CellSegmenter
        except ModuleNotFoundError as error:
            if error.name != "detectron2":
                raise
            raise ModuleNotFoundError(NO_DETECTRON2, name=error.name) from None
        return CellSegmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
