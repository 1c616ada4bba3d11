"""Detections of a Mask R-CNN in one image as arrays: boxes, scores, classes and small masks on the boxes' grids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import clip_crop

# Number of masks interpolated at a time, which bounds the memory and keeps the arrays in the processor's cache.
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of one image, best first or not, possibly overlapping.

    Attributes:
        height, width: size of the image in pixels.
        boxes: float32 ``(N, 4)``, ``(x0, y0, x1, y1)`` in pixels of the image.
        scores: float32 ``(N,)`` in 0…1.
        classes: int64 ``(N,)``, index of the class.
        masks: either float32 ``(N, M, M)``, the probability of foreground on an M × M grid over each box, or a list
            of ``N`` binary :class:`MaskCrop` when no probabilities are known.
    """

    height: int
    width: int
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | list[MaskCrop]

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, keep: np.ndarray) -> Detections:
        """The detections that ``keep`` names: a bool mask ``(N,)`` or indices, in that order."""
        indices = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep, dtype=np.int64)
        masks = self.masks[indices] if isinstance(self.masks, np.ndarray) else [self.masks[i] for i in indices]
        return Detections(
            self.height, self.width, self.boxes[indices], self.scores[indices], self.classes[indices], masks
        )

    def moved(self, dx: float, dy: float) -> Detections:
        """The detections moved to the right and down, in pixels of the image; binary masks by whole pixels, and cut."""
        if dx == dy == 0:
            return self
        boxes = self.boxes + np.array([dx, dy, dx, dy], dtype=np.float32)
        masks = self.masks
        if not isinstance(masks, np.ndarray):
            right, down = math.floor(dx + 0.5), math.floor(dy + 0.5)
            whole = [MaskCrop(crop.top + down, crop.left + right, crop.mask) for crop in masks]
            masks = [clip_crop(crop, self.height, self.width) for crop in whole]
        return replace(self, boxes=boxes, masks=masks)

    def crops(self, threshold: float | np.ndarray = 0.5) -> list[MaskCrop]:
        """Each detection's binary mask: where the probability is at least ``threshold``, one or ``(N,)``.

        Binary masks are returned as they are.
        """
        if not isinstance(self.masks, np.ndarray):
            return list(self.masks)
        thresholds = np.broadcast_to(threshold, len(self)).tolist()
        return [soft.at_least(value) for soft, value in zip(self.soft_crops(), thresholds, strict=True)]

    def soft_crops(self) -> Iterator[SoftCrop]:
        """Each detection's probabilities on the pixels of the image, one after another; 0 and 1 for binary masks."""
        if isinstance(self.masks, np.ndarray):
            for start in range(0, len(self), _CHUNK):
                part = slice(start, start + _CHUNK)
                yield from _paste(self.masks[part], self.boxes[part], self.height, self.width)
        else:
            for crop in self.masks:
                yield SoftCrop(crop.top, crop.left, crop.mask.astype(np.float32))

    def mask_scores(self, threshold: float | np.ndarray = 0.5) -> np.ndarray:
        """How sure each mask is: the mean probability over the cells of its grid that reach ``threshold``.

        Args:
            threshold: one or ``(N,)``, as for :meth:`crops`.

        Returns:
            float32 ``(N,)`` in 0…1: 0 where nothing reaches the threshold, 1 for binary masks.
        """
        if not isinstance(self.masks, np.ndarray):
            return np.ones(len(self), dtype=np.float32)
        inside = self.masks >= np.broadcast_to(threshold, len(self))[:, None, None]
        total = np.where(inside, self.masks, 0).sum(axis=(1, 2), dtype=np.float32)
        return total / np.maximum(inside.sum(axis=(1, 2), dtype=np.float32), 1)

    @cached_property
    def expected_dice(self) -> np.ndarray:
        """The highest Dice coefficient that each mask can be expected to reach, if its probabilities are right.

        The outline at a probability of half of it is expected to reach it: Lipton, Elkan & Naryanaswamy, "Optimal
        thresholding of classifiers to maximize F1 measure", ECML PKDD 2014. float32 ``(N,)`` in 0…1: 0 where all
        probabilities are 0, 1 for binary masks.
        """
        if not isinstance(self.masks, np.ndarray):
            return np.ones(len(self), dtype=np.float32)
        best = np.zeros(len(self), dtype=np.float32)
        for start in range(0, len(self), _CHUNK):
            part = self.masks[start : start + _CHUNK]
            hits = np.sort(part.reshape(len(part), -1), axis=1)[:, ::-1].cumsum(axis=1)
            dice = 2 * hits / (np.arange(1, hits.shape[1] + 1, dtype=np.float32) + hits[:, -1:])
            best[start : start + _CHUNK] = dice.max(axis=1, initial=0)
        return best


@dataclass(frozen=True, eq=False)
class SoftCrop:
    """One cell's probabilities inside a rectangle of the image; 0 outside of it.

    Attributes:
        top, left: row and column of the crop's first pixel, in pixels.
        probability: float32 ``(h, w)``.
    """

    top: int
    left: int
    probability: np.ndarray

    def at_least(self, threshold: float) -> MaskCrop:
        """The tight binary mask of the pixels whose probability is at least ``threshold``, which must be above 0."""
        return MaskCrop(self.top, self.left, self.probability >= threshold).tight()


def _paste(masks: np.ndarray, boxes: np.ndarray, height: int, width: int) -> Iterator[SoftCrop]:
    """Resample masks from their boxes' grids to the pixels of the image, only where the boxes are.

    Bilinear between the centres of the grid's cells, zero beyond its edge; a pixel is asked at its centre. This is what
    Detectron2's ``paste_masks_in_image`` computes, but as two small matrix products over the box instead of an array of
    the image's size, since bilinear interpolation on a grid is separable.

    Args:
        masks: probabilities, float ``(N, M, M)``.
        boxes: ``(N, 4)``, ``(x0, y0, x1, y1)`` in pixels of the image.
        height, width: size of the image in pixels.

    Yields:
        For each mask the part of the image that its box reaches; 0 × 0 where there is none.
    """
    x0, y0, x1, y1 = boxes.astype(np.float64).T
    rows, row_weights = _interpolation(y0, y1, masks.shape[1], height)
    columns, column_weights = _interpolation(x0, x1, masks.shape[2], width)
    for mask, (top, y, y_end), (left, x, x_end) in zip(masks, rows.tolist(), columns.tolist(), strict=True):
        if y < y_end and x < x_end:
            # For so small matrices `dot` takes half the time of `@`.
            yield SoftCrop(top, left, row_weights[y:y_end].dot(mask).dot(column_weights[x:x_end].T))
        else:
            yield SoftCrop(0, 0, np.zeros((0, 0), dtype=np.float32))


def _interpolation(starts: np.ndarray, ends: np.ndarray, size: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """How boxes' sides from ``starts`` to ``ends``, float64 ``(N,)``, are resampled to pixels, ``P`` in all.

    Returns:
        Of each side, int64 ``(N, 3)``: the first pixel that it reaches, and where its weights begin and end. And the
        weight of each grid cell in each pixel, float32 ``(P, size)``.
    """
    valid = ends > starts
    starts, ends = np.where(valid, starts, 0), np.where(valid, ends, 1)
    margins = (ends - starts) / size / 2  # the outer half of the outermost grid cells fades to zero beyond the box
    first = np.clip(np.floor(starts - margins), 0, limit).astype(np.int64)
    number = np.where(valid, np.clip(np.ceil(ends + margins), first, limit).astype(np.int64) - first, 0)
    borders = np.cumsum(number)
    side = np.repeat(np.arange(len(number)), number)
    row = np.arange(len(side))
    pixels = row + (first - borders + number)[side]
    position = (pixels + 0.5 - starts[side]) / (ends - starts)[side] * size - 0.5
    # A pixel lies between two grid cells; those beyond the grid have a column of their own, which is then cut off.
    position = np.clip(position, -1, size)
    cell = np.minimum(np.floor(position).astype(np.int64), size - 1)
    weights = np.zeros((len(side), size + 2), dtype=np.float32)
    weights[row, cell + 1] = cell + 1 - position
    weights[row, cell + 2] = position - cell
    return np.stack([first, borders - number, borders], axis=1), weights[:, 1:-1]


def vote_class(*views: Detections) -> int | None:
    """The class with the largest sum of scores in all views; the lowest index wins a tie; None without detections."""
    classes = np.concatenate([view.classes for view in views])
    if len(classes) == 0:
        return None
    return int(np.bincount(classes, weights=np.concatenate([view.scores for view in views])).argmax())
