"""From overlapping detections to what is submitted: cells that do not share a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.detections import Detections
from cellseg_d2.masks import MaskCrop
from cellseg_d2.overlaps import resolve_overlaps


@dataclass(frozen=True)
class PostprocessParams:
    """How detections become cells.

    Attributes:
        score_thresholds: a detection needs at least this score; one number for all classes or one for each.
        mask_threshold: a pixel needs at least this probability.
        min_areas: a cell needs at least this many pixels, counted after overlaps are resolved; one or one a class.
        overlap_policy: who keeps a pixel that several cells claim: ``"score"`` (the higher score), ``"smaller"`` or
            ``"larger"`` (the smaller or larger mask); see :func:`cellseg_d2.overlaps.resolve_overlaps`.
        vote: whether an image holds one type of cell only, so that all its detections take the type with the largest
            sum of scores. The thresholds of that type then apply to all of them.
    """

    score_thresholds: Sequence[float] = (0.5,)
    mask_threshold: float = 0.5
    min_areas: Sequence[int] = (0,)
    overlap_policy: str = "score"
    vote: bool = True

    def for_classes(self, values: Sequence[float], classes: np.ndarray, name: str) -> np.ndarray:
        """``values`` looked up for each of ``classes``; a single value serves all."""
        if len(values) == 1:
            return np.full(len(classes), values[0])
        if len(classes) and classes.max() >= len(values):
            raise CellSegError(
                f"{name} has {len(values)} values but the model knows a class number {classes.max() + 1}: "
                f"give one value, or one for each class"
            )
        return np.asarray(values)[classes]


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one image: disjoint masks, best score first.

    Attributes:
        height, width: of the image in pixels.
        crops: ``N`` binary masks that share no pixel.
        scores: float32 ``(N,)``.
        classes: int64 ``(N,)``, index of the class.
    """

    height: int
    width: int
    crops: list[MaskCrop]
    scores: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.crops)


def vote_class(detections: Detections) -> int | None:
    """The class with the largest sum of scores; the lowest index wins a tie; None without detections."""
    if len(detections) == 0:
        return None
    return int(np.bincount(detections.classes, weights=detections.scores).argmax())


def postprocess(detections: Detections, params: PostprocessParams) -> Cells:
    """Vote, threshold, paste, resolve overlaps, and drop what is too small, in this order."""
    if params.vote and len(detections):
        winner = np.full(len(detections), vote_class(detections))
        detections = Detections(
            detections.height, detections.width, detections.boxes, detections.scores, winner, detections.masks
        )
    needed = params.for_classes(params.score_thresholds, detections.classes, "the score threshold")
    order = np.argsort(-detections.scores, kind="stable")
    detections = detections.select(order[detections.scores[order] >= needed[order]])
    crops = resolve_overlaps(
        detections.crops(params.mask_threshold),
        detections.height,
        detections.width,
        policy=params.overlap_policy,
        scores=detections.scores,
    )
    # At least one pixel: a cell that lost all its pixels to others is gone.
    min_areas = params.for_classes(params.min_areas, detections.classes, "the minimum area")
    keep = np.array([crop.area for crop in crops], dtype=np.int64) >= np.maximum(min_areas, 1)
    return Cells(
        detections.height,
        detections.width,
        [crops[i].tight() for i in np.flatnonzero(keep)],
        detections.scores[keep],
        detections.classes[keep],
    )
