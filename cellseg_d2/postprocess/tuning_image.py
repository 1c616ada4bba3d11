"""Score many settings of the post-processing on one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cellseg_d2.detections.detections import Detections, SoftCrop, vote_class
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop, pixel_positions
from cellseg_d2.masks.ignore import LARGEST_SHARE
from cellseg_d2.masks.rle import equal_runs
from cellseg_d2.metrics.competition import THRESHOLDS, ImageScore
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import (
    Candidates,
    Settled,
    choose,
    find_candidates,
    settle,
    settle_min_areas,
)
from cellseg_d2.predictions.truth import Truth

# Sets of candidates kept, some 0.3 MB each: searches on other folds come back to the same settings of the masks.
_KEPT = 8
# Detections below this score are looked at only where a threshold is lower: most are, and no usual search comes so low.
_LEAST_SCORE = 0.05


class ImageTrials:
    """The competition score of one image as a function of :class:`PostprocessParams`.

    It gives what ``score_image`` gives for the cells of ``postprocess``, but what does not change from trial to trial
    is remembered: the masks and their overlaps as long as only thresholds on scores, areas or overlaps change, and the
    score itself for every setting that means the same for this image.

    Args:
        detections: raw, before any threshold.
        truth: the true cells, inside the image; they may overlap.
        ignore: where nobody annotated, see :func:`cellseg_d2.masks.ignore.judged`.
    """

    def __init__(self, detections: Detections, truth: Sequence[MaskCrop], ignore: MaskCrop | None = None):
        self._detections = detections
        self._winner = vote_class(detections)
        self._classes = np.unique(detections.classes).tolist()
        self._scores: dict[tuple, float] = {}
        self._candidates: dict[tuple, Candidates] = {}
        # With the latest offset: that of the masks, the detections moved by it, and their masks on the image's pixels.
        self._moved: tuple[Sequence[float], Detections, list[SoftCrop]] | None = None
        self._true_areas = np.array([crop.area for crop in truth], dtype=np.int64)
        self._true_pixels, self._true_cells = pixel_positions(truth, detections.width)
        self._ignore = ignore

    def classes(self, vote: bool) -> list[int]:
        """The classes whose values matter for this image."""
        return self._classes if not vote or self._winner is None else [self._winner]

    def score(self, params: PostprocessParams) -> float:
        """The image's score, 0…1."""
        classes = self.classes(params.vote)

        def own(values: Sequence[float]) -> tuple:
            return tuple(values[i] if len(values) > 1 else values[0] for i in classes)

        masks = (
            min((_LEAST_SCORE, *own(params.score_thresholds))),
            own(params.mask_thresholds),
            params.mask_thresholding,
            params.mask_offset,
            params.ranking,
            params.fill_holes,
            params.largest_component,
            params.vote,
        )
        rest = (
            own(params.score_thresholds),
            own(params.min_areas),
            own(params.doubtful_areas),
            params.min_area_share,
            params.nms_iou,
            params.nms_containment,
            params.overlap_policy,
        )
        if (masks, rest) not in self._scores:
            candidates = self._candidates_of(masks, params)
            params = settle_min_areas(candidates, params)
            score = self._compare(settle(candidates, choose(candidates, params), params))
            self._scores[masks, rest] = score
        return self._scores[masks, rest]

    def _candidates_of(self, key: tuple, params: PostprocessParams) -> Candidates:
        found = self._candidates.pop(key, None)
        if found is None:
            if self._moved is None or self._moved[0] != params.mask_offset:
                moved = self._detections.moved(*params.mask_offset)
                self._moved = params.mask_offset, moved, list(moved.soft_crops())
            found = find_candidates(self._moved[1], replace(params, score_thresholds=key[:1]), self._moved[2])
        self._candidates[key] = found  # as the latest used
        if len(self._candidates) > _KEPT:
            del self._candidates[next(iter(self._candidates))]
        return found

    def _compare(self, settled: Settled) -> float:
        predicted = len(settled.order)
        counted = settled.large & self._judged(settled)
        best = np.zeros(predicted)  # highest IoU of each predicted cell
        # Runs of pixels with one label in one true cell, added up: no table of all pairs, of which few share a pixel.
        runs, found = equal_runs(self._true_cells * np.int64(predicted + 1) + settled.labels.ravel()[self._true_pixels])
        pairs, pair_of_run = np.unique(found, return_inverse=True)
        shared = np.bincount(pair_of_run, runs[:, 1], len(pairs))
        columns, labels = np.divmod(pairs, predicted + 1)
        hit = labels > 0
        rows, columns, shared = labels[hit] - 1, columns[hit], shared[hit]
        np.maximum.at(best, rows, shared / (settled.areas[rows] + self._true_areas[columns] - shared))
        # Predicted cells share no pixel, so a true cell has IoU above 0.5 with one of them at most: every predicted
        # cell above the threshold can be matched.
        best = best[counted]
        tp = tuple(int(np.count_nonzero(best > threshold)) for threshold in THRESHOLDS)
        return ImageScore(tp, len(best), len(self._true_areas)).score

    def _judged(self, settled: Settled) -> np.ndarray:
        """Which predicted cells count, bool ``(P,)``."""
        if self._ignore is None:
            return np.ones(len(settled.order), dtype=bool)
        unknown = settled.labels[self._ignore.slices][self._ignore.mask]
        inside = np.bincount(unknown, minlength=len(settled.order) + 1)[1:]
        return inside <= LARGEST_SHARE * settled.areas


def make_trials(images: Mapping[str, Detections], truth: Truth, names: Iterable[str]) -> dict[str, ImageTrials]:
    """The trials of the images ``names``, from their detections and truth.

    Raises:
        CellSegError: the size of an image is not the same in both.
    """
    trials = {}
    for name in names:
        detections, true = images[name], truth.images[name]
        if (detections.height, detections.width) != (true.height, true.width):
            raise CellSegError(
                f"image {name} has {detections.width} × {detections.height} pixels in the detections, but "
                f"{true.width} × {true.height} in the ground truth; are they of the same images?"
            )
        ignore = None if true.ignore is None else coco_to_crop(true.ignore)
        trials[name] = ImageTrials(detections, [coco_to_crop(rle) for rle in true.masks], ignore)
    return trials


def groups_of(truth: Truth) -> dict[str, str]:
    """The groups of images, such as plate and well, that a COCO JSON of ``cellseg-d2 convert-to-coco`` names."""
    entries = truth.coco["images"] if truth.coco is not None else []
    return {truth.names[entry["id"]]: entry["group"] for entry in entries if entry.get("group") is not None}
