"""Masks that share no pixel, and the label images that hold them.

A label image is an int array ``(H, W)``: 0 is background, ``i + 1`` the ``i``-th cell. Since a pixel holds one number,
painting cells into one resolves their overlaps; it costs as much as the image and the crops have pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from scipy import ndimage

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop

POLICIES = ("score", "smaller", "larger")


def resolve_overlaps(
    crops: Sequence[MaskCrop],
    height: int,
    width: int,
    policy: str = "score",
    scores: Sequence[float] | np.ndarray | None = None,
) -> list[MaskCrop]:
    """Give every contested pixel to one cell only. The pixels covered in all stay the same.

    Args:
        crops: ``N`` masks. What lies outside the image is cut off.
        height, width: size of the image in pixels.
        policy: who keeps a contested pixel: ``"score"`` the cell with the higher score, ``"smaller"`` or ``"larger"``
            the cell whose mask has fewer or more pixels. Ties go to the higher score, then to the earlier cell.
        scores: ``(N,)``, higher is better; None ranks the crops as they are listed, best first.

    Returns:
        ``N`` tight crops in the order of ``crops``. A cell that lost all its pixels is an empty crop.

    Raises:
        ValueError: an unknown policy, or the number of scores is not that of the crops.

    Example:
        >>> line = MaskCrop(0, 0, np.ones((1, 4), bool))
        >>> dot = MaskCrop(0, 1, np.ones((1, 1), bool))
        >>> [crop.area for crop in resolve_overlaps([line, dot], 1, 4, policy="smaller")]
        [3, 1]
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown overlap policy {policy!r}, choose one of {', '.join(POLICIES)}")
    if scores is not None and len(scores) != len(crops):
        raise ValueError(f"{len(scores)} scores for {len(crops)} crops")
    ranking = _ranking(crops, policy, scores)
    labels = label_image([crops[i] for i in ranking], height, width)
    resolved: dict[int, MaskCrop] = {}
    for rank, i in enumerate(ranking):
        crop = clip_crop(crops[i], height, width)
        resolved[i] = MaskCrop(crop.top, crop.left, labels[crop.slices] == rank + 1).tight()
    return [resolved[i] for i in range(len(crops))]


def _ranking(crops: Sequence[MaskCrop], policy: str, scores: Sequence[float] | np.ndarray | None) -> list[int]:
    """Indices of the crops, those first that keep contested pixels. ``lexsort`` is stable: ties stay in order."""
    keys: list[np.ndarray] = [np.zeros(len(crops)) if scores is None else -np.asarray(scores, dtype=np.float64)]
    if policy != "score":
        areas = np.array([crop.area for crop in crops], dtype=np.int64)
        keys.append(areas if policy == "smaller" else -areas)
    return np.lexsort(keys).tolist()


def label_image(crops: Sequence[MaskCrop], height: int, width: int) -> np.ndarray:
    """Paint crops into one image; where they overlap, the earlier one shows.

    Args:
        crops: ``N`` masks. What lies outside the image is cut off.
        height, width: size of the image in pixels.

    Returns:
        int32 ``(height, width)``, 0 for background and ``i + 1`` for ``crops[i]``.
    """
    labels = np.zeros((height, width), dtype=np.int32)
    for i in range(len(crops) - 1, -1, -1):
        crop = clip_crop(crops[i], height, width)
        labels[crop.slices][crop.mask] = i + 1
    return labels


def label_dtype(count: int) -> type[np.unsignedinteger]:
    """The dtype of a label image of ``count`` cells: uint16 where it fits, else uint32."""
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


class LabelCrops(Sequence[MaskCrop]):
    """The cells of a label image as crops, each cut out when it is asked for: most uses never look at all of them.

    Args:
        labels: int ``(H, W)``, 0 for background and ``i + 1`` for cell ``i``. It is shared, not copied.
        windows: row and column slices of the image in which each cell lies, not necessarily tight.

    Example:
        >>> LabelCrops(np.array([[2, 2, 0], [0, 1, 2]]), [np.s_[1:2, 0:3], np.s_[0:2, 0:3]])[0].box
        (1, 1, 2, 2)
    """

    def __init__(self, labels: np.ndarray, windows: Sequence[tuple[slice, slice]]):
        self.labels = labels
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    @overload
    def __getitem__(self, index: int) -> MaskCrop: ...

    @overload
    def __getitem__(self, index: slice) -> list[MaskCrop]: ...

    def __getitem__(self, index: int | slice) -> MaskCrop | list[MaskCrop]:
        """The tight crop of cell ``index``; a list of crops for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        window = self._windows[index]
        return MaskCrop(window[0].start, window[1].start, self.labels[window] == index + 1).tight()


def crops_from_labels(labels: np.ndarray) -> list[MaskCrop]:
    """The tight crop of every label of a label image, in ascending order of the labels.

    Inverse of :func:`label_image` for crops that do not overlap, apart from empty ones, which leave no trace.

    Args:
        labels: integers ``(H, W)``, 0 for background. Labels may have gaps.

    Raises:
        CellSegError: the array has not two axes, no integers, or negative ones.
    """
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise CellSegError(f"a label image is a 2-D array of integers, this one is {labels.ndim}-D of {labels.dtype}")
    if labels.size == 0:
        return []
    if labels.min() < 0:
        raise CellSegError(f"a label image holds 0 for background and positive labels, this one has {labels.min()}")
    if labels.max() > labels.size:  # find_objects makes a list as long as the largest label
        values, ranks = np.unique(labels, return_inverse=True)
        labels = ranks.reshape(labels.shape) + (values[0] > 0)  # 0 only where there is background
    labels = labels.astype(np.int32, copy=False)
    return [
        MaskCrop(place[0].start, place[1].start, labels[place] == i + 1)
        for i, place in enumerate(ndimage.find_objects(labels))
        if place is not None
    ]


def clip_crop(crop: MaskCrop, height: int, width: int) -> MaskCrop:
    """The part of a crop that lies inside an image of ``height`` × ``width`` pixels."""
    x0, y0, x1, y1 = crop.box
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return crop
    rows = slice(max(-y0, 0), max(height - y0, 0))
    columns = slice(max(-x0, 0), max(width - x0, 0))
    return MaskCrop(max(y0, 0), max(x0, 0), crop.mask[rows, columns])


def window_crop(crop: MaskCrop, box: tuple[int, int, int, int]) -> MaskCrop:
    """The part of a mask inside a window ``(x0, y0, x1, y1)``, with its place in the window."""
    x0, y0, x1, y1 = box
    return clip_crop(MaskCrop(crop.top - y0, crop.left - x0, crop.mask), y1 - y0, x1 - x0)


def box_pairs(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of boxes that overlap.

    Args:
        boxes: ``(N, 4)``, ``(x0, y0, x1, y1)``; an empty one overlaps nothing.

    Returns:
        Indices ``first < second``, int64 ``(K,)`` each, in ascending order.
    """
    used = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    order = used[np.argsort(boxes[used, 1], kind="stable")]
    x0, y0, x1, y1 = boxes[order].T
    # Of boxes sorted by their upper sides, those that begin above a box's lower side follow it without a gap.
    ends = np.searchsorted(y0, y1, side="left").tolist()
    found = [np.zeros((0, 2), dtype=np.int64)]
    for i, end in enumerate(ends):
        below = slice(i + 1, end)
        hits = i + 1 + np.flatnonzero((x0[below] < x1[i]) & (x1[below] > x0[i]))
        if len(hits):
            found.append(np.sort(np.stack([np.full(len(hits), order[i]), order[hits]], axis=1), axis=1))
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[:, 0], pairs[:, 1]


def shared_pixels(first: MaskCrop, second: MaskCrop) -> int:
    """Number of pixels that two masks share."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = first.box, second.box
    x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
    if x0 >= x1 or y0 >= y1:
        return 0
    a = first.mask[y0 - ay0 : y1 - ay0, x0 - ax0 : x1 - ax0]
    b = second.mask[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0]
    return int(np.count_nonzero(a & b))


def intersections(crops: Sequence[MaskCrop]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of masks that share pixels.

    Args:
        crops: ``N`` masks of one image.

    Returns:
        Indices ``(K,)`` of the first and of the second mask of each pair, first < second, in ascending order, and the
        number ``(K,)`` of pixels that they share, all int64.
    """
    first, second = box_pairs(np.array([crop.box for crop in crops], dtype=np.int64).reshape(-1, 4))
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    shared = np.array([shared_pixels(crops[i], crops[j]) for i, j in pairs], dtype=np.int64)
    used = shared > 0
    return first[used], second[used], shared[used]
