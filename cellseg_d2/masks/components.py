"""Connected components of masks."""

from __future__ import annotations

import cv2
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


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected piece of a bool mask ``(h, w)``, the mask itself where there is only one."""
    if mask.size == 0:
        return mask
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count <= 2:  # the background, and at most one piece
        return mask
    return labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def filled(mask: np.ndarray) -> np.ndarray:
    """A bool mask ``(h, w)`` with the background that it encloses (4-connected)."""
    if mask.all():
        return mask
    # One pixel of background all around joins what lies outside of the cell into one piece.
    outside = cv2.copyMakeBorder(1 - mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    labels = cv2.connectedComponents(outside, connectivity=4)[1]
    return labels[1:-1, 1:-1] != labels[0, 0]


def split_components(masks: LabelLayers) -> tuple[LabelLayers, np.ndarray]:
    """Every connected component as a cell of its own.

    Returns:
        The components, and for each of them the index of the cell that it is from, int64 ``(M,)``.
    """
    parts = [components(crop) for crop in masks.crops()]
    origin = np.repeat(np.arange(len(masks)), [len(own) for own in parts])
    return LabelLayers.from_crops([part for own in parts for part in own], masks.height, masks.width), origin
