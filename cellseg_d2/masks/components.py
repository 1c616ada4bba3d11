"""Connected components of masks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.layers import LabelLayers

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def components(crop: MaskCrop) -> list[MaskCrop]:
    """The 8-connected components of a mask, as tight crops; none of an empty mask."""
    if crop.area == 0:
        return []
    labels, _ = ndimage.label(crop.mask, EIGHT_NEIGHBOURS)
    return [
        MaskCrop(crop.top + rows.start, crop.left + columns.start, labels[rows, columns] == index)
        for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
    ]


def split_components(masks: LabelLayers) -> tuple[LabelLayers, np.ndarray]:
    """Every connected component as a cell of its own.

    Returns:
        The components, and for each of them the index of the cell that it is from, int64 ``(M,)``.
    """
    parts = [components(crop) for crop in masks.crops()]
    origin = np.repeat(np.arange(len(masks)), [len(own) for own in parts])
    return LabelLayers.from_crops([part for own in parts for part in own], masks.height, masks.width), origin
