"""Merge the detections of several views or models of one image.

Concatenating detections and removing overlaps afterwards does not work: detections of a single model stay beside those
that all agree on, and slightly different masks of one cell cut each other. Here detections of *different* views are
linked if they show the same cell, best agreement first, so that a cell takes at most one detection of each view. Boxes
and scores are fused as in Solovyev, Wang & Gabruseva, "Weighted boxes fusion", Image and Vision Computing 107 (2021);
masks are averaged as probabilities. A view's own detections are never merged with each other: fusing a set of
detections with itself gives it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import shared_pixels

COMPARED = ("mask", "box")
BOXES = ("weighted", "best")
# Masks are compared on grids of about this many cells a side: enough to tell cells apart, and eight times faster.
_COARSE = 14
# Boxes that overlap less than this share of the IoU asked for hold no masks worth comparing.
_PREFILTER = 0.5
# Masks resampled at a time, which keeps the arrays in the processor's cache.
_CHUNK = 256


@dataclass(frozen=True)
class FusionParams:
    """How detections of several views are merged.

    Attributes:
        iou: detections of two views mean the same cell from this IoU on. Each is only linked to the one that it agrees
            with best, so a low value does not merge neighbours, while a high one counts a thin cell several times.
        compared: the IoU is of the ``"mask"``, soft where it is a probability, or of the ``"box"``.
        boxes: ``"weighted"`` is the mean of the boxes, weighted with their scores; ``"best"`` the box of the highest
            score, as non-maximum suppression leaves it.
        absence: exponent of the penalty for views that did not see a cell: its mean score is multiplied by the share of
            the views that saw it, to this power. 1 is a mean in which they count as 0, as in the paper; 0 no penalty;
            between them, thresholds that suit one view stay about right.
        across_classes: whether detections of different classes may be the same cell; its class is then the one with
            the largest sum of scores.
    """

    iou: float = 0.4
    compared: str = "mask"
    boxes: str = "weighted"
    absence: float = 0.5
    across_classes: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise CellSegError(f"the IoU from which detections are merged is {self.iou}; it must be above 0, at most 1")
        if self.compared not in COMPARED:
            raise CellSegError(f"detections can be compared by {' or '.join(COMPARED)}, not by {self.compared!r}")
        if self.boxes not in BOXES:
            raise CellSegError(f"boxes can be fused as {' or '.join(BOXES)}, not as {self.boxes!r}")
        if not self.absence >= 0:  # nor is a NaN
            raise CellSegError(f"the penalty for absence is {self.absence}; it must not be negative")

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> FusionParams:
        """``TEST.FUSION`` of a configuration; whether classes mix follows the post-processing's vote."""
        return cls(**{key.lower(): value for key, value in cfg["TEST"]["FUSION"].items()})


def fuse(
    views: Sequence[Detections], params: FusionParams | None = None, weights: Sequence[float] | np.ndarray | None = None
) -> Detections:
    """Merge the detections of several views, or models, of one image.

    The order of the views does not matter, but for ties.

    Args:
        views: ``V`` ≥ 1 sets of detections in the same image's coordinates. Masks may be probabilities on grids of
            any size, or binary crops; where both occur, all are made binary at 0.5.
        params: by default :class:`FusionParams`'s own.
        weights: how much each view counts, ``(V,)``, positive, or how much its detections of each class do, ``(V, K)``,
            those that count 0 being left out; None for equally.

    Returns:
        One detection for each cell, best score first. Masks are probabilities, float32 ``(N, M, M)`` with the largest
        ``M`` of the views: the mean over the views that saw the cell, weighted as the boxes, on the fused box's grid.
        Of binary masks the mean shape is taken, after Rohlfing & Maurer, "Shape-based averaging", IEEE Transactions on
        Image Processing 16 (2007): between two outlines, where a vote of two would leave all in doubt.

    Raises:
        CellSegError: there is no view, sizes differ, the weights do not fit, or no view counts for a class.

    Example:
        >>> box, mask = np.array([[2, 2, 6, 6]], np.float32), np.ones((1, 4, 4), np.float32)
        >>> seen = [Detections(9, 9, box + dx, np.array([0.8]), np.array([0]), mask) for dx in (0, 0.5)]
        >>> fused = fuse([*seen, seen[0].select([])])
        >>> fused.boxes.tolist(), f"{fused.scores[0]:.2f}"
        ([[2.25, 2.25, 6.25, 6.25]], '0.65')
    """
    params = params or FusionParams()
    weights = _check(views, weights)
    if not weights.all():
        counts = (np.flatnonzero(weight[own.classes]) for own, weight in zip(views, weights, strict=True))
        views = [own.select(some) for own, some in zip(views, counts, strict=True)]
    pool = concatenate(views)
    view = np.repeat(np.arange(len(views)), [len(own) for own in views])
    if len(pool) == 0:
        return pool
    first, second, agreement = _pairs(pool, view, params)
    cell = _link(view, first, second, agreement)
    count = cell.max() + 1

    weight = weights[view, pool.classes]
    # Shares that the detections have in their cell, float64 (N,); a score of 0 still counts where all others are 0 too.
    share = weight * np.maximum(pool.scores, 1e-9)
    share /= np.bincount(cell, share, count)[cell]

    votes = np.zeros((count, int(pool.classes.max()) + 1))
    np.add.at(votes, (cell, pool.classes), share)
    classes = votes.argmax(axis=1)
    total = np.bincount(cell, weight, count)  # of the views that saw the cell
    scores = np.bincount(cell, weight * pool.scores, count) / total
    scores *= np.minimum(total / weights.sum(axis=0)[classes], 1) ** params.absence
    if params.boxes == "weighted":
        boxes = np.stack([np.bincount(cell, share * side, count) for side in pool.boxes.T], axis=1)
    else:
        by_score = np.argsort(-pool.scores, kind="stable")
        boxes = pool.boxes[by_score[np.unique(cell[by_score], return_index=True)[1]]]
    boxes = boxes.astype(np.float32)
    average = _average_soft if isinstance(pool.masks, np.ndarray) else _average_binary
    masks = average(pool, cell, share, boxes)
    fused = Detections(pool.height, pool.width, boxes, scores.astype(np.float32), classes, masks)
    return fused.select(np.argsort(-fused.scores, kind="stable"))


def _check(views: Sequence[Detections], weights: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """The weights of the views' detections by class, float64 ``(V, K)``."""
    if len(views) == 0:
        raise CellSegError("there are no detections to fuse: give those of at least one view or model")
    sizes = sorted({(view.height, view.width) for view in views})
    if len(sizes) > 1:
        shown = " and ".join(f"{height} × {width}" for height, width in sizes[:2])
        raise CellSegError(f"detections to fuse must be of one image, but they are of {shown} pixels (height × width)")
    classes = max((int(view.classes.max()) + 1 for view in views if len(view)), default=1)
    given = np.ones(len(views)) if weights is None else np.asarray(weights, dtype=np.float64)
    by_class = given[:, None].repeat(classes, axis=1) if given.ndim == 1 else given
    fits = by_class.ndim == 2 and len(by_class) == len(views) and np.isfinite(by_class).all()
    if not fits or (by_class < 0).any() or (given.ndim == 1 and not given.all()):
        raise CellSegError(f"{len(views)} views need as many positive weights, not {given.tolist()}")
    if by_class.shape[1] < classes:
        raise CellSegError(f"weights by class are given for {by_class.shape[1]} classes, but detections have {classes}")
    if not by_class.sum(axis=0).all():
        raise CellSegError(f"no view counts for class {int(by_class.sum(axis=0).argmin())}: all its weights are 0")
    return by_class


def concatenate(parts: Sequence[Detections]) -> Detections:
    """One or more detections of one image after the other, with masks of the largest grid; binary if some are so."""
    parts = [part for part in parts if len(part)] or [parts[0]]
    soft = [(part.masks, part.boxes) for part in parts if isinstance(part.masks, np.ndarray)]
    masks: np.ndarray | list[MaskCrop]
    if len(soft) == len(parts):
        size = max(own.shape[-1] for own, _ in soft)
        masks = np.concatenate([resample_masks(own, boxes, boxes, size) for own, boxes in soft])
    else:
        masks = [crop for part in parts for crop in part.crops()]
    boxes, scores, classes = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "classes")
    )
    return Detections(parts[0].height, parts[0].width, boxes, scores, classes, masks)


def _pairs(pool: Detections, view: np.ndarray, params: FusionParams) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections of different views that may be one cell: two arrays of indices and their IoU."""
    least = params.iou * (_PREFILTER if params.compared == "mask" else 1)
    own = [np.flatnonzero(view == number) for number in np.unique(view)]
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for position, some in enumerate(own):
        for others in own[position + 1 :]:
            iou = _box_iou(pool.boxes[some], pool.boxes[others])
            near = iou >= least
            if not params.across_classes:
                near &= pool.classes[some, None] == pool.classes[None, others]
            i, j = np.nonzero(near)
            found.append((some[i], others[j], iou[i, j]))
    first, second, iou = map(np.concatenate, zip(*found, strict=True))
    if params.compared == "mask":
        iou = (_soft_iou if isinstance(pool.masks, np.ndarray) else _binary_iou)(pool, first, second)
    keep = iou >= params.iou
    return first[keep], second[keep], iou[keep]


def _link(view: np.ndarray, first: np.ndarray, second: np.ndarray, agreement: np.ndarray) -> np.ndarray:
    """Number of each detection's cell, int64 ``(N,)``: pairs are joined, best first, unless a view would come twice."""
    parent, seen_by = list(range(len(view))), [1 << number for number in view.tolist()]

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    order = np.argsort(-agreement, kind="stable")
    for i, j in zip(first[order].tolist(), second[order].tolist(), strict=True):
        i, j = root(i), root(j)
        if seen_by[i] & seen_by[j] == 0:
            parent[j] = i
            seen_by[i] |= seen_by[j]
    return np.unique([root(item) for item in range(len(view))], return_inverse=True)[1]


def _box_iou(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes ``(P, 4)`` and ``(Q, 4)``, float64 ``(P, Q)``; neither may be empty."""
    some, others = (np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (some, others))
    return coco_mask.iou(some.astype(np.float64), others.astype(np.float64), np.zeros(len(others), dtype=np.uint8))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def _soft_iou(pool: Detections, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Σ min / Σ max of the probabilities of pairs of masks, float32 ``(P,)``."""
    masks, boxes = _coarse(np.asarray(pool.masks)), pool.boxes
    size = masks.shape[-1]
    mass = masks.mean(axis=(1, 2)) * _areas(boxes)  # the expected number of pixels
    # On the grid of the smaller box, which is the finer one.
    swap = _areas(boxes[first]) > _areas(boxes[second])
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    shared = np.zeros(len(first), dtype=np.float32)
    for start in range(0, len(first), _CHUNK):
        i, j = first[start : start + _CHUNK], second[start : start + _CHUNK]
        moved = resample_masks(masks[j], boxes[j], boxes[i], size)
        shared[start : start + _CHUNK] = np.minimum(masks[i], moved).mean(axis=(1, 2)) * _areas(boxes[i])
    return shared / np.maximum(mass[first] + mass[second] - shared, 1e-9)


def _coarse(masks: np.ndarray) -> np.ndarray:
    """Masks averaged over blocks, where their size is a multiple of :data:`_COARSE`."""
    count, size, _ = masks.shape
    if size <= _COARSE or size % _COARSE:
        return masks
    block = size // _COARSE
    return masks.reshape(count, _COARSE, block, _COARSE, block).mean(axis=(2, 4))


def _binary_iou(pool: Detections, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU in pixels of pairs of crops, float32 ``(P,)``."""
    areas = np.array([crop.area for crop in pool.masks], dtype=np.int64)
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    shared = np.array([shared_pixels(pool.masks[i], pool.masks[j]) for i, j in pairs], dtype=np.int64)
    return (shared / np.maximum(areas[first] + areas[second] - shared, 1)).astype(np.float32)


def _average_soft(pool: Detections, cell: np.ndarray, share: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Mean probabilities of each cell's masks on its fused box's grid, float32 ``(K, M, M)``."""
    masks = np.asarray(pool.masks)
    size = masks.shape[-1]
    averaged = np.zeros((len(boxes), size, size), dtype=np.float32)
    for start in range(0, len(cell), _CHUNK):
        some = slice(start, start + _CHUNK)
        moved = resample_masks(masks[some], pool.boxes[some], boxes[cell[some]], size)
        np.add.at(averaged, cell[some], moved * share[some, None, None].astype(np.float32))
    return averaged


def _average_binary(pool: Detections, cell: np.ndarray, share: np.ndarray, boxes: np.ndarray) -> list[MaskCrop]:
    """The mean shape of each cell's masks."""
    order = np.argsort(cell, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(cell[order])) + 1)
    return [_mean_shape([pool.masks[i] for i in own], share[own]) for own in members]


def _mean_shape(crops: Sequence[MaskCrop], share: np.ndarray) -> MaskCrop:
    """Where the weighted mean of the signed distances to the masks' outlines is not negative."""
    shapes = [(crop, weight) for crop, weight in zip(crops, share, strict=True) if crop.area]
    if len(shapes) < 2:
        return shapes[0][0] if shapes else crops[0]
    # One pixel around all of them, so that each has an outside.
    x0, y0 = (min(crop.box[axis] for crop, _ in shapes) - 1 for axis in (0, 1))
    x1, y1 = (max(crop.box[axis] for crop, _ in shapes) + 1 for axis in (2, 3))
    mean = np.zeros((y1 - y0, x1 - x0))
    for crop, weight in shapes:
        mask = MaskCrop(crop.top - y0, crop.left - x0, crop.mask).to_full(*mean.shape).astype(np.uint8)
        inside, outside = (cv2.distanceTransform(m, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for m in (mask, 1 - mask))
        mean += weight * np.where(mask, inside - 0.5, 0.5 - outside)
    return MaskCrop(y0, x0, mean >= 0).tight()


def resample_masks(masks: np.ndarray, boxes: np.ndarray, new_boxes: np.ndarray, size: int) -> np.ndarray:
    """Masks on the grids of other boxes: bilinear between the centres of the grid's cells, zero beyond its edge.

    Args:
        masks: float32 ``(N, M, M)``, on a grid over each of ``boxes``.
        boxes, new_boxes: ``(N, 4)``, ``(x0, y0, x1, y1)`` in pixels.
        size: cells a side of the new grid.

    Returns:
        float32 ``(N, size, size)``. Masks whose box and grid stay the same are not changed.
    """
    old_size = masks.shape[-1]
    if size == old_size and (new_boxes is boxes or np.array_equal(boxes, new_boxes)):
        return masks
    boxes, new_boxes = boxes.astype(np.float64), new_boxes.astype(np.float64)
    if len(masks) > _CHUNK:
        starts = range(0, len(masks), _CHUNK)
        parts = (slice(start, start + _CHUNK) for start in starts)
        return np.concatenate([resample_masks(masks[p], boxes[p], new_boxes[p], size) for p in parts])
    columns, rows = (_weights(boxes[:, [a, a + 2]], new_boxes[:, [a, a + 2]], old_size, size) for a in (0, 1))
    return rows @ masks @ columns.transpose(0, 2, 1)


def _weights(old: np.ndarray, new: np.ndarray, old_size: int, size: int) -> np.ndarray:
    """How much each old grid cell counts in each new one along one axis, float32 ``(N, size, old_size)``."""
    centers = new[:, :1] + (np.arange(size) + 0.5) / size * (new[:, 1:] - new[:, :1])  # (N, size)
    length = np.maximum(old[:, 1:] - old[:, :1], 1e-6)
    position = (centers - old[:, :1]) / length * old_size - 0.5
    return np.maximum(0, 1 - np.abs(position[:, :, None] - np.arange(old_size))).astype(np.float32)
