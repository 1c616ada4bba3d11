"""Measure how well an RPN's anchors cover the cells of a data set, and fit anchors to it.

Detectron2's ``DefaultAnchorGenerator`` repeats the same boxes at every cell of a level's feature map. The best of those
positions is found without laying them out: for an anchor of one shape the overlap falls with the distance in x and, by
itself, with the distance in y, so that the nearest position in each direction is the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellseg_d2.datasets.coco_file import is_cell, read_coco
from cellseg_d2.errors import CellSegError

FPN_STRIDES = (4, 8, 16, 32, 64)
# Images are padded to a multiple of this on the right and at the bottom, as the pyramid's strides up to p5 need it.
SIZE_DIVISIBILITY = 32


@dataclass(frozen=True)
class Anchors:
    """The anchors of all levels.

    Attributes:
        sizes: by level, square roots of the areas in pixels of the network's input.
        ratios: by level, height / width.
        strides: strides of the levels' feature maps in pixels.
        offset: distance of the first anchor's centre from the image's corner, in strides.
    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]
    strides: tuple[int, ...] = FPN_STRIDES
    offset: float = 0.0

    @classmethod
    def from_lists(
        cls, sizes: Sequence, ratios: Sequence, strides: Sequence[int] = FPN_STRIDES, offset: float = 0.0
    ) -> Anchors:
        """From the lists of ``MODEL.ANCHOR_GENERATOR``, where one entry may stand for all levels.

        Raises:
            CellSegError: their number is not that of the levels.
        """
        return cls(
            _by_level(sizes, len(strides), "SIZES"),
            _by_level(ratios, len(strides), "ASPECT_RATIOS"),
            tuple(strides),
            float(offset),
        )

    def yaml(self) -> str:
        """YAML to be pasted into a configuration."""
        ratios = self.ratios[:1] if len(set(self.ratios)) == 1 else self.ratios
        return (
            f"MODEL:\n  ANCHOR_GENERATOR:\n    SIZES: {_yaml_list(self.sizes)}\n    ASPECT_RATIOS: {_yaml_list(ratios)}"
        )


@dataclass(frozen=True, eq=False)
class CellBoxes:
    """Boxes of cells with the sizes of their images.

    Attributes:
        boxes: float64 ``(N, 4)``, ``(x0, y0, x1, y1)`` in pixels; the sides lie on the outer edges of pixels.
        image_sizes: float64 ``(N, 2)``, height and width of each box's image in pixels.
        types: ``(N,)`` of str, the category of each cell.
    """

    boxes: np.ndarray
    image_sizes: np.ndarray
    types: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def resized(self, short_side: int, max_size: int = 100_000) -> CellBoxes:
        """Boxes of images resized as by Detectron2's ``ResizeShortestEdge``: to the given short side, unless the long
        one gets too long.
        """
        scale = short_side / self.image_sizes.min(axis=1)
        scale = np.minimum(scale, max_size / self.image_sizes.max(axis=1))
        return self._to(np.floor(self.image_sizes * scale[:, None] + 0.5))

    def zoomed(self, factor: float) -> CellBoxes:
        """Boxes of images enlarged by ``factor``."""
        return self._to(self.image_sizes * factor)

    def sample(self, per_type: int, seed: int = 0) -> CellBoxes:
        """At most so many cells of each type, drawn without repetition."""
        generator = np.random.default_rng(seed)
        chosen = []
        for name in np.unique(self.types):
            own = np.flatnonzero(self.types == name)
            chosen.append(own if len(own) <= per_type else generator.choice(own, per_type, replace=False))
        indices = np.sort(np.concatenate(chosen))
        return CellBoxes(self.boxes[indices], self.image_sizes[indices], self.types[indices])

    def _to(self, image_sizes: np.ndarray) -> CellBoxes:
        scale = (image_sizes / self.image_sizes)[:, ::-1]  # x, y
        return CellBoxes(self.boxes * np.tile(scale, 2), image_sizes, self.types)


def join(parts: Sequence[CellBoxes]) -> CellBoxes:
    """Several sets of boxes as one."""
    return CellBoxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.image_sizes for part in parts]),
        np.concatenate([part.types for part in parts]),
    )


def read_boxes(path: str | Path) -> CellBoxes:
    """The boxes in a COCO JSON, as they are written there; regions marked ``iscrowd`` and empty boxes are left out.

    Raises:
        CellSegError: the file is not a COCO JSON with boxes, or has none.
    """
    file = read_coco(path)
    cells = [a for a in file.annotations if is_cell(a)]
    for annotation in cells:
        if "bbox" not in annotation:
            raise CellSegError(f"{path}, annotation {annotation.get('id')} has no bbox; convert it first")
        if annotation["image_id"] not in file.images or annotation.get("category_id") not in file.categories:
            raise CellSegError(f"{path}, annotation {annotation.get('id')} names no image or category of the file")
    boxes = np.array([a["bbox"] for a in cells], dtype=np.float64).reshape(-1, 4)
    image_sizes = np.array([file.size(a["image_id"]) for a in cells], dtype=np.float64).reshape(-1, 2)
    types = np.array([file.categories[a["category_id"]] for a in cells], dtype=str)
    boxes[:, 2:] += boxes[:, :2]  # COCO has x, y, width, height
    keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if not keep.any():
        raise CellSegError(f"{path} has no annotated cell to fit anchors to")
    return CellBoxes(boxes[keep], image_sizes[keep], types[keep])


def best_iou(cells: CellBoxes, anchors: Anchors) -> np.ndarray:
    """The IoU of each box with the best of all anchors at all their positions.

    Args:
        cells: in pixels of the network's input.
        anchors: anchors of all levels.

    Returns:
        float64 ``(N,)``.
    """
    x0, y0, x1, y1 = cells.boxes.T
    center_x, center_y = (x0 + x1) / 2, (y0 + y1) / 2
    height, width = y1 - y0, x1 - x0
    best = np.zeros(len(cells))
    rows, columns = feature_sizes(cells.image_sizes, anchors.strides)
    for level, stride in enumerate(anchors.strides):
        # (N,) distances to the nearest centre of this level's anchors.
        away_x = np.abs(center_x - _nearest(center_x, columns[level], stride, anchors.offset))
        away_y = np.abs(center_y - _nearest(center_y, rows[level], stride, anchors.offset))
        for size in anchors.sizes[level]:
            for ratio in anchors.ratios[level]:
                anchor_width, anchor_height = size / ratio**0.5, size * ratio**0.5
                shared = _overlap(away_x, width, anchor_width) * _overlap(away_y, height, anchor_height)
                np.maximum(best, shared / (width * height + size * size - shared), out=best)
    return best


def feature_sizes(image_sizes: np.ndarray, strides: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Rows and columns of each level's feature map, ``(N,)`` each, for images ``(N, 2)`` of height and width."""
    padded = np.ceil(image_sizes / SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY
    maps = [np.ceil(padded / stride) for stride in strides]
    return [sizes[:, 0] for sizes in maps], [sizes[:, 1] for sizes in maps]


def _nearest(position: np.ndarray, count: np.ndarray, stride: int, offset: float) -> np.ndarray:
    index = np.clip(np.round(position / stride - offset), 0, count - 1)
    return (index + offset) * stride


def _overlap(distance: np.ndarray, first: np.ndarray, second: float) -> np.ndarray:
    """Common length of two intervals of the given lengths whose middles are so far apart."""
    return np.clip((first + second) / 2 - distance, 0, np.minimum(first, second))


def shares_below(iou: np.ndarray, types: np.ndarray, thresholds: Sequence[float]) -> dict[str, list[float]]:
    """The share of cells of each type whose IoU is below each threshold, 0…1, by the type's name."""
    return {str(name): [float((iou[types == name] < t).mean()) for t in thresholds] for name in np.unique(types)}


def fit_anchors(
    cells: CellBoxes,
    *,
    sizes_per_level: int = 2,
    ratios: int = 5,
    strides: Sequence[int] = FPN_STRIDES,
    offset: float = 0.0,
    thresholds: Sequence[float] = (0.5, 0.7),
) -> Anchors:
    """Sizes of each level and ratios for all of them that leave few cells without a good anchor.

    A plain search in two steps for the smallest sum of the shares of cells below the thresholds, as the mean over the
    types, so that each type counts the same; among equals the higher mean IoU wins.

    1. On a grid: sizes that grow evenly, by a factor of two a level, from a smallest one on; ratios that grow evenly
       from 1, both ways (in training images are turned and flipped, so that tall and wide boxes are as frequent).
    2. One number after the other, every size and every ratio with its inverse, is made larger or smaller by 15, 7 and
       3 %, as long as that helps. Sizes stay in order within their level and between 2 and 16 strides.

    Args:
        cells: in pixels of the network's input; a few thousand of each type are enough.
        sizes_per_level: number of sizes at each level.
        ratios: number of ratios, odd.
        strides, offset: see :class:`Anchors`.
        thresholds: thresholds of the best IoU. From 0.7 on the RPN learns an anchor as a cell; a cell without one is
            learnt from its best anchor alone, which needs to be corrected the more the lower its IoU is.

    Returns:
        Sizes in whole pixels, ratios with two decimals.
    """
    if ratios < 1 or ratios % 2 == 0 or sizes_per_level < 1:
        raise CellSegError(f"{sizes_per_level} sizes and {ratios} ratios cannot be fitted: at least one, ratios odd")

    def cost(anchors: Anchors) -> tuple[float, float]:
        iou = best_iou(cells, anchors)
        shares = shares_below(iou, cells.types, thresholds)
        return float(np.mean([sum(own) for own in shares.values()])), -float(iou.mean())

    def evenly(smallest: float, step: float) -> Anchors:
        sizes = [
            [smallest * stride / strides[0] * 2 ** (i / sizes_per_level) for i in range(sizes_per_level)]
            for stride in strides
        ]
        return Anchors(
            tuple(map(tuple, sizes)),
            (_symmetric([step**i for i in range(1, ratios // 2 + 1)]),) * len(strides),
            tuple(strides),
            offset,
        )

    smallest = strides[0] * np.geomspace(2, 8, 13)
    steps = np.linspace(1.4, 2.6, 7) if ratios > 1 else [1.0]
    best = min((evenly(size, step) for size in smallest for step in steps), key=cost)
    best = _refined(best, cost)
    return replace(
        best,
        sizes=tuple(tuple(float(round(size)) for size in level) for level in best.sizes),
        ratios=tuple(tuple(round(ratio, 2) for ratio in level) for level in best.ratios),
    )


def _refined(anchors: Anchors, cost: Callable[[Anchors], tuple]) -> Anchors:
    lowest = cost(anchors)
    for step in (1.15, 1.07, 1.03):
        improved = True
        while improved:
            improved = False
            for candidate in _neighbours(anchors, step):
                changed = candidate(anchors)
                value = cost(changed)
                if value < lowest:
                    anchors, lowest, improved = changed, value, True
    return anchors


def _neighbours(anchors: Anchors, step: float) -> Iterator[Callable[[Anchors], Anchors]]:
    """Functions that change one number of anchors; what would be out of order or out of bounds is left as it is."""

    def resize(level: int, index: int, factor: float) -> Callable[[Anchors], Anchors]:
        def change(old: Anchors) -> Anchors:
            sizes = [list(own) for own in old.sizes]
            sizes[level][index] *= factor
            own, stride = sizes[level], old.strides[level]
            if own != sorted(own) or not 2 * stride <= own[index] <= 16 * stride:
                return old
            return replace(old, sizes=tuple(map(tuple, sizes)))

        return change

    def stretch(index: int, factor: float) -> Callable[[Anchors], Anchors]:
        def change(old: Anchors) -> Anchors:
            own = old.ratios[0]
            upper = list(own[len(own) // 2 + 1 :])
            upper[index] *= factor
            if upper != sorted(upper) or upper[0] <= 1:
                return old
            return replace(old, ratios=(_symmetric(upper),) * len(old.strides))

        return change

    for factor in (step, 1 / step):
        for level, own in enumerate(anchors.sizes):
            yield from (resize(level, index, factor) for index in range(len(own)))
        yield from (stretch(index, factor) for index in range(len(anchors.ratios[0]) // 2))


def _symmetric(above_one: Sequence[float]) -> tuple[float, ...]:
    return (*(1 / ratio for ratio in reversed(above_one)), 1.0, *above_one)


def _by_level(values: Sequence, levels: int, key: str) -> tuple[tuple[float, ...], ...]:
    lists = [list(values)] if values and not isinstance(values[0], Sequence) else [list(v) for v in values]
    lists = lists * levels if len(lists) == 1 else lists
    if len(lists) != levels or not all(lists):
        raise CellSegError(f"ANCHOR_GENERATOR.{key} has {len(lists)} entries, but the pyramid has {levels} levels")
    return tuple(tuple(float(value) for value in own) for own in lists)


def _yaml_list(levels: Sequence[Sequence[float]]) -> str:
    return "[" + ", ".join("[" + ", ".join(f"{value:g}" for value in own) + "]" for own in levels) + "]"
