"""What a training on a few annotated images should be: its parts, its length, the sizes at which cells are seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellseg_d2.datasets.folds import split_groups
from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.errors import CellSegError

# From so many images on, a quarter is held out; of fewer, each is held out once, in a cross-validation.
_HELD_OUT_FROM = 8
_SHARE = 0.25
_FOLDS = 2
# Iterations of two crops: a minimum in which a pre-trained model adapts, and so many more for each image.
_LEAST, _EACH, _MOST = 300, 40, 1500
# Cells of images whose median diameters are within this factor are of one size, if there are so many images.
_ONE_SIZE, _ONE_SIZE_FROM = 1.6, 4
# Cells are also seen so much smaller and larger than the model knows them best.
_JITTER = 1.3
_ZOOMS = 0.25, 4.0
# Cells need half the area that nearly all of them have.
_SMALLEST_SHARE, _SMALLEST_PERCENTILE = 0.5, 2


@dataclass(frozen=True)
class Part:
    """Images to train on, and others to score on, by name."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A training; made by :func:`make_plan`.

    Attributes:
        images, cells: how many there are to learn from.
        partly: how many of the images count in part only.
        diameters: median diameter of the cells in pixels, the smallest and the largest of all images.
        zoom: range of factors by which training images are resized.
        one_size: the diameter of all cells, where they are of one size: images are then looked at at this size only.
        smallest: pixels; nearly all annotated cells are at least twice as large.
        iterations: of two crops each.
        parts: trainings whose scores on ``val`` say how good the model is: the folds of a cross-validation, or the only
            one; empty where nothing is scored.
        seed: of the split.
    """

    images: int
    cells: int
    partly: int
    diameters: tuple[float, float]
    zoom: tuple[float, float]
    one_size: float | None
    smallest: int
    iterations: int
    parts: tuple[Part, ...]
    seed: int = 0

    @property
    def cross_validated(self) -> bool:
        """Whether the model is trained once more, on all images, after the parts."""
        return len(self.parts) != 1

    def sentences(self) -> list[str]:
        """What was chosen, and why, for people."""
        low, high = self.diameters
        size = f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
        part = f", {self.partly} of them annotated in part" if self.partly else ""
        said = [f"{self.images} images{part}, {self.cells:,} cells of {size} pixels across"]
        if not self.parts:
            said.append("split: none, all images are trained on and no score is known")
        elif self.cross_validated:
            said.append(
                f"split: {len(self.parts)} folds, as {self.images} images are few: each is scored by a model that has "
                "not seen it; the model that you get is trained on all"
            )
        else:
            own = self.parts[0]
            said.append(f"split: {len(own.train)} images to train on, {len(own.val)} to score on")
        said.append(f"length: {self.iterations} iterations of 2 crops of 256 × 256 pixels")
        looked = (
            f"at {self.one_size:.0f} pixels a cell"
            if self.one_size
            else "at several, as cells differ or images are few"
        )
        said.append(
            f"sizes: training enlarges images {self.zoom[0]:.2f} to {self.zoom[1]:.2f} times; prediction looks {looked}"
        )
        return said


def make_plan(
    records: Sequence[ImageRecord],
    cell_diameter: float,
    *,
    iterations: int | None = None,
    folds: int | None = None,
    seed: int = 0,
) -> Plan:
    """Choose a training.

    Args:
        records: the annotated images.
        cell_diameter: in pixels of the network's input, of the cells that the model knows best.
        iterations: instead of those that the number of images suggests.
        folds: of the cross-validation, instead of those; 0 scores nothing.
        seed: of the split.

    Raises:
        CellSegError: there is nothing to learn, or there are fewer images than folds.
    """
    if not records:
        raise CellSegError("there is no annotated image to train on: correct and save one first")
    areas = [np.array([cell.crop.area for cell in record.cells], dtype=np.float64) for record in records]
    every = np.concatenate(areas)
    if not len(every):
        raise CellSegError("not one cell is annotated in any of the images, so there is nothing to learn")
    diameters = np.array([2 * math.sqrt(float(np.median(own)) / math.pi) for own in areas if len(own)])
    low, high = float(diameters.min()), float(diameters.max())
    one_size = None
    if len(diameters) >= _ONE_SIZE_FROM and high <= _ONE_SIZE * low:
        one_size = float(np.median(diameters))
    wanted = (cell_diameter / high, cell_diameter / low) if one_size is None else (cell_diameter / one_size,) * 2
    zoom = tuple(float(np.clip(z, *_ZOOMS)) for z in (wanted[0] / _JITTER, wanted[1] * _JITTER))
    return Plan(
        images=len(records),
        cells=len(every),
        partly=sum(record.ignore is not None for record in records),
        diameters=(low, high),
        zoom=(zoom[0], zoom[1]),
        one_size=one_size,
        smallest=int(_SMALLEST_SHARE * np.percentile(every, _SMALLEST_PERCENTILE)),
        iterations=iterations or min(_MOST, max(_LEAST, _EACH * len(records))),
        parts=_parts(records, folds, seed),
        seed=seed,
    )


def _parts(records: Sequence[ImageRecord], folds: int | None, seed: int) -> tuple[Part, ...]:
    names = [record.id for record in records]
    units = [("image", r.id) if r.group is None else ("group", r.group) for r in records]
    # Each training needs an image with cells, and so do those that it is scored on, to say anything.
    filled = [bool(record.cells) for record in records]
    if folds == 0 or len({unit for unit, own in zip(units, filled, strict=True) if own}) == 1:
        if folds:
            raise CellSegError(
                "cells are annotated in one image, or one group of them, only, which cannot be split: annotate cells "
                "in another one, or give --folds 0"
            )
        return ()
    if folds is None:
        folds = _FOLDS if len(names) < _HELD_OUT_FROM else 1
    shares = [1 / folds] * folds if folds > 1 else [1 - _SHARE, _SHARE]
    chosen = split_groups(units, filled, shares, seed)

    def part(number: int) -> Part:
        train, val = (
            [n for n, own in zip(names, chosen, strict=True) if (own == number) == out] for out in (False, True)
        )
        return Part(tuple(train), tuple(val))

    return tuple(part(fold) for fold in (range(folds) if folds > 1 else [1]))
