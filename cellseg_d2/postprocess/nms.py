"""Non-maximum suppression on masks: of the detections that cover one cell, keep the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, triu

from cellseg_d2.masks.crop import MaskCrop, pixel_positions
from cellseg_d2.masks.overlaps import intersections

# Pixels up to which an image is worked on as a whole; in larger ones each cell among its neighbours, which takes no
# memory of the image's size, but more time where cells are crowded. The results are the same.
LARGE_IMAGE = 2**24


@dataclass(frozen=True, eq=False)
class MaskPairs:
    """The pairs of masks that share pixels.

    Attributes:
        first, second: int64 ``(K,)``, indices of the masks; ``first < second``, in ascending order.
        iou: float64 ``(K,)``, intersection over union, above 0.
        containment: float64 ``(K,)``, intersection over the area of the smaller mask.
    """

    first: np.ndarray
    second: np.ndarray
    iou: np.ndarray
    containment: np.ndarray


def mask_pairs(crops: Sequence[MaskCrop], height: int, width: int) -> MaskPairs:
    """Find the masks that overlap, and by how much.

    Args:
        crops: ``N`` masks inside an image of ``height`` × ``width`` pixels; an empty one overlaps nothing.
    """
    areas = np.array([crop.area for crop in crops], dtype=np.int64)
    small = height * width <= LARGE_IMAGE
    first, second, shared = _by_pixel(crops, height, width) if small else intersections(crops)
    iou = shared / (areas[first] + areas[second] - shared)
    return MaskPairs(first, second, iou, shared / np.minimum(areas[first], areas[second]))


def _by_pixel(crops: Sequence[MaskCrop], height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """:func:`cellseg_d2.masks.overlaps.intersections` by a sparse product of masks × pixels with its transpose.

    Only masks that share a pixel meet in it, and only the pixels that several masks have are in it.
    """
    flat, owners = pixel_positions(crops, width)
    contested = np.flatnonzero(np.bincount(flat, minlength=1)[flat] > 1)
    flat, owners = flat[contested], owners[contested]
    masks = csr_array((np.ones(len(flat), dtype=np.int32), (owners, flat)), shape=(len(crops), height * width))
    shared = triu(masks @ masks.T, k=1, format="csr")
    shared.sort_indices()
    shared = shared.tocoo()
    return shared.row.astype(np.int64), shared.col.astype(np.int64), shared.data


def mask_nms(pairs: MaskPairs, present: np.ndarray, max_iou: float = 1.0, max_containment: float = 1.0) -> np.ndarray:
    """Greedy suppression: going from the best mask to the worst, drop what overlaps a kept one too much.

    Args:
        pairs: pairs of ``N`` masks that are ordered best first.
        present: bool ``(N,)``, the masks that take part.
        max_iou, max_containment: a mask is dropped when either is above this for a better one; 1 drops none.

    Returns:
        bool ``(N,)``: the masks of ``present`` that stay.
    """
    conflict = (pairs.iou > max_iou) | (pairs.containment > max_containment)
    keep = present.tolist()
    # In ascending order, so that whether the first of a pair stays is settled before it drops the second.
    for first, second in zip(pairs.first[conflict].tolist(), pairs.second[conflict].tolist(), strict=True):
        if keep[first]:
            keep[second] = False
    return np.array(keep, dtype=bool)
