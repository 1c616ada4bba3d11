"""Non-maximum suppression on masks: of detections that cover the same cell, the best one stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, triu

from cellseg_d2.masks.crop import MaskCrop


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

    A sparse product of masks × pixels with its transpose: only masks that share a pixel meet in it, and only the pixels
    that several masks have are in it.

    Args:
        crops: ``N`` masks inside an image of ``height`` × ``width`` pixels; an empty one overlaps nothing.
    """
    pixels = [np.zeros(0, dtype=np.int64)]
    for crop in crops:
        y, x = np.nonzero(crop.mask)
        pixels.append((y + crop.top) * width + x + crop.left)
    areas = np.array([len(own) for own in pixels[1:]], dtype=np.int64)
    flat = np.concatenate(pixels)
    contested = np.flatnonzero(np.bincount(flat, minlength=1)[flat] > 1)
    flat, owners = flat[contested], np.repeat(np.arange(len(crops)), areas)[contested]
    masks = csr_array((np.ones(len(flat), dtype=np.int32), (owners, flat)), shape=(len(crops), height * width))
    shared = triu(masks @ masks.T, k=1, format="csr")
    shared.sort_indices()
    shared = shared.tocoo()
    first, second = shared.row.astype(np.int64), shared.col.astype(np.int64)
    iou = shared.data / (areas[first] + areas[second] - shared.data)
    return MaskPairs(first, second, iou, shared.data / np.minimum(areas[first], areas[second]))


def mask_nms(pairs: MaskPairs, present: np.ndarray, max_iou: float = 1.0, max_containment: float = 1.0) -> np.ndarray:
    """Greedy suppression: going from the best mask to the worst, drop what overlaps a kept one too much.

    Args:
        pairs: of ``N`` masks that are ordered best first.
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
