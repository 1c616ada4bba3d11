"""Mask R-CNN instance segmentation of cells in microscopy images, on Detectron2."""

from cellseg_d2.missing import explain_missing_detectron2

__version__ = "0.1.0"

explain_missing_detectron2()


def __getattr__(name: str):
    """``cellseg_d2.CellSegmenter``, without importing PyTorch for those who only want masks and metrics."""
    if name == "CellSegmenter":
        from cellseg_d2.inference.model import CellSegmenter

        return CellSegmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
