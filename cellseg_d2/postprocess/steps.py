"""Turn overlapping detections into cells that share no pixel.

The steps are separate functions so that :mod:`cellseg_d2.postprocess.tuning` can repeat the last ones without the
first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cellseg_d2.detections.detections import Detections, SoftCrop, vote_class
from cellseg_d2.masks.components import filled, largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import LabelCrops, label_image, window_crop
from cellseg_d2.postprocess import nms
from cellseg_d2.postprocess.nms import MaskPairs, mask_nms, mask_pairs
from cellseg_d2.postprocess.params import PostprocessParams


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one image: disjoint masks, best score first.

    Attributes:
        height, width: size of the image in pixels.
        crops: ``N`` tight binary masks that share no pixel.
        scores: float32 ``(N,)``, those that ``PostprocessParams.ranking`` names.
        classes: int64 ``(N,)``, index of the class.
    """

    height: int
    width: int
    crops: Sequence[MaskCrop]
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.crops)

    def label_image(self) -> np.ndarray:
        """All cells in one image, int32 ``(H, W)``, not to be changed: 0 is background, ``i + 1`` is ``crops[i]``."""
        if isinstance(self.crops, LabelCrops):
            return self.crops.labels
        return label_image(self.crops, self.height, self.width)


@dataclass(frozen=True, eq=False)
class Candidates(Cells):
    """Detections as binary masks, best score first, which may overlap; some may be empty, and crops need not be tight.

    In the label image the better ones show.
    """

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, int64 ``(N,)``."""
        return np.array([crop.area for crop in self.crops], dtype=np.int64)

    @cached_property
    def pairs(self) -> MaskPairs:
        """The masks that overlap."""
        return mask_pairs(self.crops, self.height, self.width)


@dataclass(frozen=True, eq=False)
class Settled:
    """Assignment of contested pixels to cells.

    Attributes:
        labels: int32 ``(H, W)``, 0 for background, ``r + 1`` for the candidate ``order[r]``.
        order: int64 ``(K,)``, indices of candidates, those first that keep contested pixels.
        areas: int64 ``(K,)``, pixels left of each.
        large: bool ``(K,)``, whether these are enough; those that are too small still stand in ``labels``.
    """

    labels: np.ndarray
    order: np.ndarray
    areas: np.ndarray
    large: np.ndarray


def postprocess(detections: Detections, params: PostprocessParams, pasted: Sequence[SoftCrop] | None = None) -> Cells:
    """Turn the detections of an image of any size into disjoint cells.

    The order of the steps:

    1. vote: all detections take the image's type;
    2. ranking: the score is that of the box, or times the mean probability inside the mask;
    3. score threshold, by class;
    4. masks, moved by the offset: probabilities at least the mask threshold, by class and, for ``"dice"``, by mask, on
       the pixels of the image;
    5. largest component, then filling of holes;
    6. minimum area, in pixels and as a share of the image's median, a first time, and the score that a doubtful area
       needs: what is already too small, or too unsure for its size, takes no pixel from others;
    7. mask NMS by IoU and by containment, across classes;
    8. contested pixels go to one cell each, by the overlap policy;
    9. largest component of the cells that this has cut;
    10. minimum area of what is left, at least one pixel.

    Every step costs in proportion to the detections and their pixels, but for one label image in step 8, which large
    images do without.

    Args:
        detections: detections of the whole image.
        params: parameters of the steps.
        pasted: the masks on the pixels of the image, one for each detection, where they differ from those in
            ``detections``; these are not moved.
    """
    if pasted is None:
        detections = detections.moved(*params.mask_offset)
    candidates = find_candidates(detections, params, pasted)
    params = settle_min_areas(candidates, params)
    chosen = choose(candidates, params)
    if detections.height * detections.width > nms.LARGE_IMAGE:
        return _settle_locally(candidates, chosen, params)
    settled = settle(candidates, chosen, params)
    ranks = np.flatnonzero(settled.large)
    ranks = ranks[np.argsort(settled.order[ranks])]  # best score first again
    chosen = settled.order[ranks]
    number = np.zeros(len(settled.order) + 1, dtype=np.int32)
    number[ranks + 1] = np.arange(1, len(ranks) + 1)
    crops = LabelCrops(number[settled.labels], [candidates.crops[i].slices for i in chosen])
    return Cells(detections.height, detections.width, crops, candidates.scores[chosen], candidates.classes[chosen])


def find_candidates(
    detections: Detections, params: PostprocessParams, pasted: Sequence[SoftCrop] | None = None
) -> Candidates:
    """Steps 1 to 5 of :func:`postprocess`.

    Args:
        detections: detections of one image, before any threshold.
        params: parameters; those of the later steps do not matter, and the masks have been moved already.
        pasted: ``detections.soft_crops()`` if already computed.
    """
    raw = detections  # which remembers its expected Dice: searches come back to it
    if params.vote and len(detections):
        detections = replace(detections, classes=np.full(len(detections), vote_class(detections)))
    thresholds = params.for_classes(params.mask_thresholds, detections.classes, "the mask threshold")
    if params.mask_thresholding == "dice":
        thresholds = thresholds * np.maximum(raw.expected_dice, 1e-6)  # 0 would make a mask of nothing whole
    if params.ranking == "box*mask":
        detections = replace(detections, scores=detections.scores * detections.mask_scores(thresholds))
    needed = params.for_classes(params.score_thresholds, detections.classes, "the score threshold")
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] >= needed[order]]
    detections = detections.select(order)
    if isinstance(detections.masks, np.ndarray):
        soft = detections.soft_crops() if pasted is None else (pasted[i] for i in order)
        crops = [
            MaskCrop(own.top, own.left, own.probability >= threshold)
            for own, threshold in zip(soft, thresholds[order].tolist(), strict=True)
        ]
    else:
        crops = detections.crops()
    if params.largest_component:
        crops = [MaskCrop(crop.top, crop.left, largest_component(crop.mask)).tight() for crop in crops]
    if params.fill_holes:
        crops = [MaskCrop(crop.top, crop.left, filled(crop.mask)) for crop in crops]
    return Candidates(detections.height, detections.width, crops, detections.scores, detections.classes)


def settle_min_areas(candidates: Candidates, params: PostprocessParams) -> PostprocessParams:
    """Turn ``min_area_share`` into ``min_areas``, in pixels of this image.

    The median is over the candidates that reach the score threshold and the minimum area in pixels.
    """
    if not params.min_area_share:
        return params
    areas = candidates.areas[_good(candidates, params)]
    least = math.ceil(params.min_area_share * float(np.median(areas)) - 1e-6) if len(areas) else 0
    return replace(params, min_areas=[max(least, own) for own in params.min_areas], min_area_share=0.0)


def choose(candidates: Candidates, params: PostprocessParams) -> np.ndarray:
    """Steps 6 and 7 of :func:`postprocess`, and step 3 where ``candidates`` were found with a lower threshold.

    Returns:
        Indices of the candidates that stay, int64 ``(K,)``, ascending.
    """
    keep = _good(candidates, params)
    if min(params.nms_iou, params.nms_containment) < 1 and keep.any():
        keep = mask_nms(candidates.pairs, keep, params.nms_iou, params.nms_containment)
    return np.flatnonzero(keep)


def settle(candidates: Candidates, chosen: np.ndarray, params: PostprocessParams) -> Settled:
    """Steps 8 to 10 of :func:`postprocess` for the candidates with the indices ``chosen``, ascending."""
    order = _by_right(candidates, chosen, params)
    labels = label_image([candidates.crops[i] for i in order], candidates.height, candidates.width)
    areas = np.bincount(labels.ravel(), minlength=len(order) + 1)[1:]
    if params.largest_component:
        for rank in np.flatnonzero((areas > 0) & (areas < candidates.areas[order])):
            part = labels[candidates.crops[order[rank]].slices]
            mask = part == rank + 1
            largest = largest_component(mask)
            part[mask & ~largest] = 0
            areas[rank] = np.count_nonzero(largest)
    return Settled(labels, order, areas, areas >= _min_areas(candidates, params)[order])


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
    """The chosen candidates, those first that keep contested pixels; of equally large ones the better."""
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


def _good(candidates: Candidates, params: PostprocessParams) -> np.ndarray:
    """Which candidates reach the score that they need and the minimum area in pixels, bool ``(N,)``."""
    needed = params.for_classes(params.score_thresholds, candidates.classes, "the score threshold")
    doubtful = params.for_classes(params.doubtful_areas, candidates.classes, "the doubtful area")
    lacking = np.maximum(1 - np.sqrt(candidates.areas / np.maximum(doubtful, 1)), 0)  # of the diameter
    needed = needed + np.maximum(1 - needed, 0) * lacking
    return (candidates.scores >= needed) & (candidates.areas >= _min_areas(candidates, params))


def _min_areas(candidates: Candidates, params: PostprocessParams) -> np.ndarray:
    return np.maximum(params.for_classes(params.min_areas, candidates.classes, "the minimum area"), 1)
