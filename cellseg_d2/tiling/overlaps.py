"""Post-processing whose memory grows with the cells and not with the image.

:func:`cellseg_d2.postprocess.steps.postprocess` settles contested pixels in one label image and finds overlapping
masks with an index of all pixels. For an image of 100 megapixels that is more than a gigabyte; here each cell is
settled among its neighbours, with the same result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cellseg_d2.detections.detections import Detections, SoftCrop
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import clip_crop
from cellseg_d2.postprocess.nms import MaskPairs
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import Candidates, Cells, choose, find_candidates, settle


@dataclass(frozen=True, eq=False)
class ManyCandidates(Candidates):
    """Candidates whose overlaps are found without an index of the image's pixels."""

    @cached_property
    def pairs(self) -> MaskPairs:
        """The masks that overlap."""
        return neighbour_pairs(self.crops)


def postprocess_large(
    detections: Detections, params: PostprocessParams, pasted: Sequence[SoftCrop] | None = None
) -> Cells:
    """The same as :func:`cellseg_d2.postprocess.steps.postprocess`, for images of any size.

    Slower where an image is small and crowded: it works cell by cell.

    Args:
        detections, params: as there.
        pasted: where masks are probabilities, those to be taken instead of what ``detections`` holds, one for each.
    """
    found = find_candidates(detections, params, pasted)
    candidates = ManyCandidates(found.height, found.width, found.crops, found.scores, found.classes)
    return _settle_locally(candidates, choose(candidates, params), params)


def neighbour_pairs(crops: Sequence[MaskCrop]) -> MaskPairs:
    """:func:`cellseg_d2.postprocess.nms.mask_pairs`, one pair of overlapping boxes after the other."""
    boxes = np.array([crop.box for crop in crops], dtype=np.int64).reshape(-1, 4)
    first, second = box_pairs(boxes)
    shared = [shared_pixels(crops[i], crops[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    shared = np.array(shared, dtype=np.int64)
    first, second, shared = first[shared > 0], second[shared > 0], shared[shared > 0]
    areas = np.array([crop.area for crop in crops], dtype=np.int64)
    iou = shared / (areas[first] + areas[second] - shared)
    return MaskPairs(first, second, iou, shared / np.minimum(areas[first], areas[second]))


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


def window_crop(crop: MaskCrop, box: tuple[int, int, int, int]) -> MaskCrop:
    """The part of a mask inside a window ``(x0, y0, x1, y1)``, with its place in the window."""
    x0, y0, x1, y1 = box
    return clip_crop(MaskCrop(crop.top - y0, crop.left - x0, crop.mask), y1 - y0, x1 - x0)


def _settle_locally(candidates: Candidates, chosen: np.ndarray, params: PostprocessParams) -> Cells:
    """Steps 8 to 10 of ``postprocess``: :func:`settle` for each contested cell, with those that it yields to."""
    rank = np.full(len(candidates), len(candidates))
    rank[_by_right(candidates, chosen, params)] = np.arange(len(chosen))
    stronger: dict[int, list[int]] = defaultdict(list)
    if len(chosen):
        for i, j in zip(candidates.pairs.first.tolist(), candidates.pairs.second.tolist(), strict=True):
            if max(rank[i], rank[j]) < len(candidates):  # both are among the chosen
                strong, weak = (i, j) if rank[i] < rank[j] else (j, i)
                stronger[weak].append(strong)
    in_order = replace(params, overlap_policy="score")
    crops, kept = [], []
    for i in chosen.tolist():
        crop = candidates.crops[i]
        if i in stronger:
            crop = _what_is_left(candidates, i, stronger[i], in_order)
        if crop is not None:
            crops.append(crop.tight())
            kept.append(i)
    return Cells(candidates.height, candidates.width, crops, candidates.scores[kept], candidates.classes[kept])


def _by_right(candidates: Candidates, chosen: np.ndarray, params: PostprocessParams) -> np.ndarray:
    """The chosen candidates, those first that keep contested pixels."""
    if params.overlap_policy == "score":
        return chosen
    sign = 1 if params.overlap_policy == "smaller" else -1
    return chosen[np.argsort(sign * candidates.areas[chosen], kind="stable")]


def _what_is_left(candidates: Candidates, i: int, stronger: list[int], params: PostprocessParams) -> MaskCrop | None:
    """A cell without the pixels of those that are ``stronger``; None if that is too little."""
    crop = candidates.crops[i]
    x0, y0, x1, y1 = crop.box
    indices = [*stronger, i]
    local = Candidates(
        y1 - y0,
        x1 - x0,
        [window_crop(candidates.crops[j], crop.box) for j in indices],
        candidates.scores[indices],
        candidates.classes[indices],
    )
    settled = settle(local, np.arange(len(indices)), params)
    if not settled.large[-1]:
        return None
    return MaskCrop(y0, x0, settled.labels == len(indices))
