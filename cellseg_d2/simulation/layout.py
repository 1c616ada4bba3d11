"""Place cells: how many, in which clusters, and how much they overlap.

Annotators outlined crowded cells side by side, so that most masks share a thin seam with a neighbour and few share
more. This is imitated here: a new cell is pushed against an older one and loses the part that would lie deep inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.masks.components import largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.simulation.shapes import CellShape, draw_shape

REFERENCE_PIXELS = 520 * 704  # the counts below are for an image of this size


@dataclass(frozen=True)
class Crowd:
    """How cells of one type lie together.

    Attributes:
        count: mean number of cells per :data:`REFERENCE_PIXELS`. An image shows more, as it also shows those that its
            border cuts: with these numbers 337, 80 and 34.
        spread: standard deviation of that number over its mean.
        most: upper limit of that number.
        touching: share of the cells that are pushed against another.
        crossing: largest share of a cell that may cross others where trimming it would cut it into pieces.
        patches: how far from even the density is; 0 is even.
        holes: share of the masks that get a small hole.
        least: smallest mask, in pixels.
    """

    count: float
    spread: float
    most: int
    touching: float
    crossing: float
    patches: float
    holes: float
    least: int


CROWDS = {
    "shsy5y": Crowd(
        count=308, spread=0.45, most=660, touching=0.25, crossing=0.05, patches=0.55, holes=0.034, least=30
    ),
    "astro": Crowd(count=67, spread=0.6, most=300, touching=0.75, crossing=0.1, patches=0.9, holes=0.24, least=37),
    "cort": Crowd(count=30.5, spread=0.45, most=108, touching=0.09, crossing=0.0, patches=0.5, holes=0.012, least=33),
}


@dataclass(frozen=True, eq=False)
class PlacedCell:
    """A cell with its place: pixel ``(y, x)`` of the canvas is ``shape.mask[y - top, x - left]``."""

    top: int
    left: int
    shape: CellShape

    @property
    def crop(self) -> MaskCrop:
        """Its mask on the canvas."""
        return MaskCrop(self.top, self.left, self.shape.mask)


def place_cells(cell_type: str, rng: np.random.Generator, height: int, width: int, count: int) -> list[PlacedCell]:
    """Draw up to ``count`` cells and place them on a canvas of ``height`` × ``width`` pixels.

    Where no free place is found for a cell within some trials it is left out.
    """
    crowd = CROWDS[cell_type]
    taken = np.zeros((height, width), dtype=bool)  # any cell
    inside = np.zeros((height, width), dtype=bool)  # any cell, but for a seam along its edge
    spots = _random_spots(rng, height, width, crowd.patches, 12 * count)
    cells: list[PlacedCell] = []
    centers = np.zeros((count, 2))
    for k in range(count):
        shape = draw_shape(cell_type, rng)
        h, w = shape.mask.shape
        if h >= height or w >= width:
            continue
        candidates, beside = list(spots[12 * k : 12 * k + 12]), 0
        if cells and rng.random() < crowd.touching:
            around = _beside(rng, cells, centers, spots[12 * k], shape)
            beside, candidates = len(around), [*around, *candidates]
        for trial, (y, x) in enumerate(candidates):
            top, left = int(y) - h // 2, int(x) - w // 2
            if top < 0 or left < 0 or top + h > height or left + w > width:
                continue
            window = (slice(top, top + h), slice(left, left + w))
            if trial < beside and not (shape.mask & taken[window]).any():
                continue
            mask = _fit(shape.mask, inside[window], crowd)
            if mask is not None and np.count_nonzero(mask) >= crowd.least:
                break
        else:
            continue
        if rng.random() < crowd.holes:
            mask = _with_hole(rng, mask)
        # The seam that neighbours may share is one to three pixels wide.
        depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        taken[window] |= mask
        inside[window] |= depth > rng.uniform(0.8, 2.2)
        centers[len(cells)] = top + h / 2, left + w / 2
        cells.append(PlacedCell(top, left, CellShape(mask, shape.tips, shape.flat)))
    return cells


def _random_spots(rng: np.random.Generator, height: int, width: int, patches: float, count: int) -> np.ndarray:
    """Random places ``(count, 2)`` as ``y, x``, denser in some patches of the canvas than in others."""
    coarse = rng.standard_normal((height // 40 + 3, width // 40 + 3)).astype(np.float32)
    field = cv2.GaussianBlur(coarse, (0, 0), 1.2)
    weights = np.exp(patches * field / field.std())
    cells = rng.choice(weights.size, size=count, p=(weights / weights.sum()).ravel())
    y, x = np.unravel_index(cells, weights.shape)
    spots = np.stack([y, x], axis=1) + rng.random((count, 2))
    return spots * [height / weights.shape[0], width / weights.shape[1]]


def _beside(
    rng: np.random.Generator, cells: list[PlacedCell], centers: np.ndarray, spot: np.ndarray, shape: CellShape
) -> list[np.ndarray]:
    """Places for ``shape`` around the cell that is nearest to ``spot``, from outside inwards."""
    near = int(np.argmin(((centers[: len(cells)] - spot) ** 2).sum(axis=1)))
    heading = spot - centers[near]
    heading = heading / max(np.linalg.norm(heading), 1e-6)
    reach = (np.abs(heading) * (np.array(cells[near].shape.mask.shape) + shape.mask.shape)).sum() / 2
    return [centers[near] + heading * reach * share for share in np.linspace(1.05, 0.35, 10) + rng.uniform(-0.03, 0.03)]


def _fit(mask: np.ndarray, inside: np.ndarray, crowd: Crowd) -> np.ndarray | None:
    """``mask`` trimmed to its neighbours' seams, or None where it would lose too much; all ``(h, w)``."""
    area = np.count_nonzero(mask)
    lost = np.count_nonzero(mask & inside)
    if lost == 0:
        return mask
    if lost > 0.3 * area:
        return None
    trimmed = largest_component(mask & ~inside)
    if np.count_nonzero(trimmed) >= 0.75 * area:
        return trimmed
    return mask if lost <= crowd.crossing * area else None


def _with_hole(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """``mask`` with a hole of a few pixels, such as annotators' outlines leave where they meet themselves."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    places = np.argwhere(depth >= 1.9)
    if len(places) == 0:
        return mask
    y, x = places[rng.integers(len(places))]
    radius = min(float(rng.gamma(1.2, 1.3)), 0.6 * float(depth[y, x]) - 0.5)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return largest_component(mask & ((rows - y) ** 2 + (columns - x) ** 2 > radius**2))
