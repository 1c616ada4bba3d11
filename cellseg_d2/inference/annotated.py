"""Annotated images as segmentations, which can be measured, drawn and saved in every format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.masks.overlaps import resolve_overlaps
from cellseg_d2.postprocess.steps import Cells


def segmentation_of(
    record: ImageRecord,
    class_names: Sequence[str],
    image: np.ndarray | None = None,
    pixel_size: PixelSize | None = None,
    *,
    disjoint: bool = False,
) -> Segmentation:
    """The annotated cells of an image, in their order, with the score 1.

    Args:
        record: the image.
        class_names: of all cells of the data set.
        image: grey values ``(H, W)``, where they are at hand.
        pixel_size: where it is known.
        disjoint: give every pixel of several cells to the smallest of them. A cell that is left without any is gone.
    """
    crops = [cell.crop.tight() for cell in record.cells]
    if disjoint:
        crops = resolve_overlaps(crops, record.height, record.width, policy="smaller")
    kept = [i for i, crop in enumerate(crops) if crop.area]
    classes = np.array([class_names.index(record.cells[i].cell_type) for i in kept], dtype=np.int64)
    scores = np.ones(len(kept), dtype=np.float32)
    cells = Cells(record.height, record.width, [crops[i] for i in kept], scores, classes)
    return Segmentation(cells, class_names, image, pixel_size, record.id, file_name=record.file_name)
