"""Write the detections of one image before any threshold, which post-processing is tuned on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.detections.saved import save_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import FORMATS

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@FORMATS.register(
    "detections",
    suffix="_detections.npz",
    summary="all detections before any threshold, for cellseg-d2 tune-postprocess (NPZ)",
)
def write_detections(path: str | Path, segmentation: Segmentation) -> None:
    """Write the detections that a segmentation was made of as :mod:`cellseg_d2.detections.saved` reads them.

    Args:
        path: path of the ``.npz``.
        segmentation: with its ``detections``; the image goes by its ``name``.

    Raises:
        CellSegError: they were not kept.
    """
    if segmentation.detections is None:
        raise CellSegError(
            f"the detections that {segmentation.name} was made of were not kept: segment it with keep_detections=True"
        )
    save_detections(path, {segmentation.name: segmentation.detections}, segmentation.class_names)
