"""Classify errors of predicted cells: missed, merged, split, badly outlined, spurious.

Cells are matched one to one at IoU > 0.5, as the competition's metric does at its lowest threshold. Every cell that
finds no partner then gets exactly one kind of error, the first of :data:`DEFINITIONS` that applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.masks.crop import MaskCrop, coco_to_crop
from cellseg_d2.masks.overlaps import box_pairs, shared_pixels
from cellseg_d2.metrics.competition import THRESHOLDS, ImageScore, mask_iou, match_at

HIT_IOU = THRESHOLDS[0]
NEAR_IOU = 0.1
COVERED = 0.5
PIECE = 0.1
NEIGHBOUR_DISTANCE = 10.0

TRUE_KINDS = ("found", "shifted", "merged", "split", "missed")
PREDICTED_KINDS = ("hit", "shifted", "merging", "fragment", "spurious")

# In the order in which they are tried.
DEFINITIONS: dict[str, dict[str, str]] = {
    "true cells": {
        "found": f"matched one to one with a predicted cell, IoU > {HIT_IOU}",
        "merged": f"one predicted cell covers more than {COVERED:.0%} of this and of another true cell; so also a cell "
        "that lies on a larger, found one",
        "split": f"two or more predicted cells lie inside this one: more than {COVERED:.0%} of each, and each covers "
        f"at least {PIECE:.0%} of it",
        "shifted": f"a predicted cell without a match overlaps it with {NEAR_IOU} < IoU ≤ {HIT_IOU}: there, but at a "
        "wrong place, too large or too small",
        "missed": "none of these",
    },
    "predicted cells": {
        "hit": f"matched one to one with a true cell, IoU > {HIT_IOU}",
        "merging": f"covers more than {COVERED:.0%} of each of two or more true cells",
        "fragment": f"more than {COVERED:.0%} of it lies inside a true cell of which another predicted cell is a piece "
        "or the match",
        "shifted": f"overlaps a true cell without a match with {NEAR_IOU} < IoU ≤ {HIT_IOU}",
        "spurious": "none of these",
    },
}


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The cells of one image, T true and P predicted ones, and what became of them.

    Attributes:
        true_kinds: int8 ``(T,)``, indices into :data:`TRUE_KINDS`.
        predicted_kinds: int8 ``(P,)``, indices into :data:`PREDICTED_KINDS`.
        true_areas, predicted_areas: int64 ``(T,)`` and ``(P,)``, in pixels.
        true_hits, predicted_hits: bool ``(T, 10)`` and ``(P, 10)``, matched at each of the metric's thresholds.
        best_iou: float64 ``(T,)``, highest IoU of each true cell with any predicted one; 0 without any.
        neighbours: int64 ``(T,)``, see :func:`count_neighbours`.
        displacements: float64 ``(M, 2)``, how far the centre of mass of each hit lies to the right of that of its true
            cell, and how far below, in pixels.
    """

    true_kinds: np.ndarray
    predicted_kinds: np.ndarray
    true_areas: np.ndarray
    predicted_areas: np.ndarray
    true_hits: np.ndarray
    predicted_hits: np.ndarray
    best_iou: np.ndarray
    neighbours: np.ndarray
    displacements: np.ndarray

    @property
    def score(self) -> ImageScore:
        """The image's competition score."""
        hits = tuple(int(count) for count in self.true_hits.sum(axis=0))
        return ImageScore(hits, len(self.predicted_kinds), len(self.true_kinds))

    @property
    def true_counts(self) -> dict[str, int]:
        """True cells of each kind."""
        return count_kinds(self.true_kinds, TRUE_KINDS)

    @property
    def predicted_counts(self) -> dict[str, int]:
        """Predicted cells of each kind."""
        return count_kinds(self.predicted_kinds, PREDICTED_KINDS)


def count_kinds(kinds: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """How many of ``kinds`` (indices into ``names``) there are of each name."""
    return dict(zip(names, np.bincount(kinds, minlength=len(names)).tolist(), strict=True))


def find_errors(
    predicted: Sequence[dict], true: Sequence[dict], neighbour_distance: float = NEIGHBOUR_DISTANCE
) -> ImageErrors:
    """Compare the predicted with the true cells of one image.

    Args:
        predicted, true: ``P`` and ``T`` compressed COCO RLEs of one size; masks of one side may overlap.
        neighbour_distance: true cells at most so many pixels apart are neighbours.

    Example:
        >>> def strip(x0, x1):
        ...     mask = np.zeros((4, 20), np.uint8, order="F")
        ...     mask[:, x0:x1] = 1
        ...     return coco_mask.encode(mask)
        >>> find_errors([strip(0, 20)], [strip(0, 10), strip(10, 20)]).true_counts["merged"]
        2
    """
    iou = mask_iou(predicted, true)
    predicted_areas, true_areas = (
        np.array([coco_mask.area(rle) for rle in rles], np.int64) for rles in (predicted, true)
    )
    matches = [match_at(iou, threshold) for threshold in THRESHOLDS]
    predicted_hits = np.zeros((len(predicted), len(THRESHOLDS)), bool)
    true_hits = np.zeros((len(true), len(THRESHOLDS)), bool)
    for column, match in enumerate(matches):
        predicted_hits[match.pred, column] = True
        true_hits[match.true, column] = True
    true_kinds, predicted_kinds = _classify(iou, predicted_areas, true_areas, ~predicted_hits[:, 0], ~true_hits[:, 0])
    true_crops = [coco_to_crop(rle) for rle in true]
    return ImageErrors(
        true_kinds,
        predicted_kinds,
        true_areas,
        predicted_areas,
        true_hits,
        predicted_hits,
        iou.max(axis=0, initial=0.0),
        count_neighbours(true_crops, neighbour_distance),
        _centres([coco_to_crop(predicted[i]) for i in matches[0].pred])
        - _centres([true_crops[i] for i in matches[0].true]),
    )


def _centres(crops: Sequence[MaskCrop]) -> np.ndarray:
    """The centre of mass ``(x, y)`` of each mask, float64 ``(N, 2)``."""
    centres = [np.argwhere(crop.mask).mean(axis=0)[::-1] + np.array([crop.left, crop.top]) for crop in crops]
    return np.array(centres).reshape(-1, 2)


def _classify(
    iou: np.ndarray,
    predicted_areas: np.ndarray,
    true_areas: np.ndarray,
    predicted_open: np.ndarray,
    true_open: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Kinds of the true and of the predicted cells; ``…_open`` says which have no match. ``iou`` is ``(P, T)``."""
    # IoU = I / (A + B - I), solved for the intersection I; rounding makes it exact again.
    overlap = np.rint(iou * (predicted_areas[:, None] + true_areas) / (1 + iou))
    of_true = overlap / np.maximum(true_areas, 1)  # (P, T), share of the true cell that is covered
    of_predicted = overlap / np.maximum(predicted_areas, 1)[:, None]  # share of the predicted cell that lies inside
    covers = of_true > COVERED
    merging = covers.sum(axis=1) >= 2  # (P,)
    inside = of_predicted > COVERED
    piece = inside & (of_true >= PIECE)
    near = (iou > NEAR_IOU) & predicted_open[:, None] & true_open

    # The last assignment wins, so the kinds come in reverse order of their definitions.
    true_kinds = np.full(len(true_areas), TRUE_KINDS.index("missed"), np.int8)
    true_kinds[near.any(axis=0)] = TRUE_KINDS.index("shifted")
    true_kinds[piece.sum(axis=0) >= 2] = TRUE_KINDS.index("split")
    true_kinds[covers[merging].any(axis=0)] = TRUE_KINDS.index("merged")
    true_kinds[~true_open] = TRUE_KINDS.index("found")

    # Of a true cell that is matched at IoU > 0.5, the match is a piece, too, or reaches beyond it.
    partner = (iou > HIT_IOU) & ~predicted_open[:, None] & ~true_open
    has_other = (piece | partner).sum(axis=0) - (piece | partner) >= 1  # (P, T)
    predicted_kinds = np.full(len(predicted_areas), PREDICTED_KINDS.index("spurious"), np.int8)
    predicted_kinds[near.any(axis=1)] = PREDICTED_KINDS.index("shifted")
    predicted_kinds[(inside & has_other).any(axis=1)] = PREDICTED_KINDS.index("fragment")
    predicted_kinds[merging] = PREDICTED_KINDS.index("merging")
    predicted_kinds[~predicted_open] = PREDICTED_KINDS.index("hit")
    return true_kinds, predicted_kinds


def count_neighbours(crops: Sequence[MaskCrop], distance: float = NEIGHBOUR_DISTANCE) -> np.ndarray:
    """How many other cells come close to each cell.

    Args:
        crops: N masks of one image.
        distance: cells are neighbours when the centres of two of their pixels are at most so many pixels apart; masks
            that touch are 1 apart, masks that overlap 0.

    Returns:
        int64 ``(N,)``.
    """
    grown = [_grown(crop, distance) if crop.area else crop for crop in crops]
    pairs = zip(*box_pairs(np.array([crop.box for crop in grown]).reshape(-1, 4)), strict=True)
    close = [(i, j) for i, j in pairs if shared_pixels(grown[i], crops[j])]
    return np.bincount(np.array(close, dtype=np.int64).ravel(), minlength=len(crops))


def _grown(crop: MaskCrop, distance: float) -> MaskCrop:
    margin = int(np.ceil(distance))
    outside = (~np.pad(crop.mask, margin)).astype(np.uint8)
    away = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # The transform is in float32: a distance of exactly √2 must count when √2 is asked for.
    return MaskCrop(crop.top - margin, crop.left - margin, away <= distance + 1e-4)


def _corrected(image: ImageErrors, kinds: Mapping[str, Sequence[str]]) -> ImageScore:
    """The score if true cells of some kinds were found with a perfect outline, and predicted ones were not there."""
    true, predicted, hits = image.true_counts, image.predicted_counts, np.array(image.score.tp)
    if "found" in kinds["true"]:
        hits = np.full(len(THRESHOLDS), true["found"])
    added = sum(true[kind] for kind in kinds["true"] if kind != "found")
    removed = sum(predicted[kind] for kind in kinds["predicted"])
    tp = tuple(int(count) for count in hits + added)
    return ImageScore(tp, len(image.predicted_kinds) + added - removed, len(image.true_kinds))


# What is corrected together: true cells that become perfect, predicted ones that go.
CORRECTIONS: dict[str, Mapping[str, Sequence[str]]] = {
    "outlines of found cells": {"true": ("found",), "predicted": ()},
    "shifted": {"true": ("shifted",), "predicted": ("shifted",)},
    "merged": {"true": ("merged",), "predicted": ("merging",)},
    "split": {"true": ("split",), "predicted": ("fragment",)},
    "missed": {"true": ("missed",), "predicted": ()},
    "spurious": {"true": (), "predicted": ("spurious",)},
}


def score_if_corrected(images: Sequence[ImageErrors]) -> dict[str, float]:
    """The mean score of the images if all errors of one kind were corrected and everything else stayed as it is.

    The idea is that of TIDE (Bolya et al., 2020): it tells which errors are worth working on. The gains do not add up.

    Returns:
        By name of :data:`CORRECTIONS`.
    """
    return {
        name: float(np.mean([_corrected(image, kinds).score for image in images]))
        for name, kinds in CORRECTIONS.items()
    }
