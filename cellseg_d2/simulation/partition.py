"""Lay out cells that touch by dividing the plane among them, from islands to a sheet without gaps.

Every pixel belongs to the nearest seed, as in a Voronoi diagram, up to a reach from it. The diagram is computed on a
canvas that is stretched and bent before it is laid onto the image, which makes borders curved and wavy, and cells
spindly and locally parallel. Some cells have several seeds, which makes them concave.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.simulation.noise import smooth_noise


@dataclass(frozen=True, eq=False)
class Bend:
    """A smooth map from the image onto a flat canvas.

    Attributes:
        x, y: float32 ``(H, W)``, the canvas's coordinates of each pixel.
        shape: height and width of the canvas.
    """

    x: np.ndarray
    y: np.ndarray
    shape: tuple[int, int]

    def lay(self, canvas: np.ndarray, flags: int = cv2.INTER_LINEAR) -> np.ndarray:
        """What ``canvas`` shows, as seen in the image."""
        return cv2.remap(canvas, self.x, self.y, flags, borderMode=cv2.BORDER_REFLECT)


def draw_bend(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float, stretch: float, waviness: float
) -> Bend:
    """A random map for cells of ``diameter`` pixels, ``stretch`` times as long as wide."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [(2.2, 0.22), (0.9, 0.07 * waviness), (0.3, 0.03 * waviness)]
    if stretch > 1.3:  # spindly cells follow each other in bends much wider than they are long
        waves.append((12.0 * np.sqrt(stretch), rng.uniform(0.3, 1.3) * np.sqrt(stretch)))
    for scale, amplitude in waves:
        if scale * diameter > 3:
            x += np.float32(amplitude * diameter) * smooth_noise(rng, shape, scale * diameter)
            y += np.float32(amplitude * diameter) * smooth_noise(rng, shape, scale * diameter)
    turn, root = rng.uniform(0, np.pi), np.sqrt(stretch)
    along = ((np.cos(turn) * x + np.sin(turn) * y) / root).astype(np.float32)
    across = ((np.cos(turn) * y - np.sin(turn) * x) * root).astype(np.float32)
    border = np.float32(1.5 * diameter)
    along -= along.min() - border
    across -= across.min() - border
    return Bend(along, across, (int(across.max() + border) + 2, int(along.max() + border) + 2))


def draw_seeds(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float, *, regularity: int, gradient: float
) -> np.ndarray:
    """Seeds ``(n, 2)`` (``y, x``) for cells of the mean ``diameter``.

    Args:
        rng: source of randomness.
        shape: height and width of the canvas.
        diameter: in pixels.
        regularity: steps of relaxation; 0 leaves them as unequal as chance makes them.
        gradient: how far sizes differ between parts of the canvas; 0 is not at all.
    """
    count = max(int(shape[0] * shape[1] / (0.8 * diameter**2)), 3)
    weights = np.exp(gradient * smooth_noise(rng, (shape[0] // 8 + 1, shape[1] // 8 + 1), diameter)).ravel()
    chosen = rng.choice(weights.size, count, p=weights.astype(float) / weights.sum(dtype=float))
    y, x = np.unravel_index(chosen, (shape[0] // 8 + 1, shape[1] // 8 + 1))
    seeds = np.clip(8 * (np.stack([y, x], axis=1) + rng.random((count, 2))), 0, np.array(shape) - 1)
    rows, columns = np.indices(shape, dtype=np.float32)
    for _ in range(regularity):
        labels, _ = nearest(seeds, shape)
        flat = labels.ravel()
        sizes = np.maximum(np.bincount(flat, minlength=len(seeds) + 1), 1)
        sums = [np.bincount(flat, axis.ravel(), len(seeds) + 1) for axis in (rows, columns)]
        middles = (np.stack(sums, axis=1) / sizes[:, None])[1:]
        seeds = np.where((np.bincount(flat, minlength=len(seeds) + 1)[1:] > 0)[:, None], middles, seeds)
    # The neighbours of some that are taken away grow large.
    return seeds[rng.random(len(seeds)) >= rng.uniform(0, 0.25)] if len(seeds) > 8 else seeds


def nearest(seeds: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of the ``seeds`` ``(n, 2)`` (``y, x``) to each pixel.

    Returns:
        Its number from 1, int32 ``(H, W)``, and the distance to it in pixels, float32 ``(H, W)``.
    """
    free = np.ones(shape, dtype=np.uint8)
    y, x = np.clip(np.round(seeds).astype(int), 0, np.array(shape) - 1).T
    free[y, x] = 0
    distance, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    # OpenCV numbers them in the order of its own; of seeds in one pixel the last one counts.
    number = np.zeros(int(labels.max()) + 1, dtype=np.int32)
    number[labels[y, x]] = np.arange(1, len(seeds) + 1)
    return number[labels], distance


def _seen(seeds: np.ndarray, bend: Bend) -> np.ndarray:
    """Which of the ``seeds`` lie in the part of the canvas that the image shows, bool ``(n,)``."""
    step = 8
    shown = np.zeros((bend.shape[0] // step + 1, bend.shape[1] // step + 1), dtype=bool)
    shown[bend.y[::4, ::4].astype(int) // step, bend.x[::4, ::4].astype(int) // step] = True
    return shown[tuple(seeds.astype(int).T // step)]


def partition(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    diameter: float,
    coverage: float = 1.0,
    stretch: float = 1.0,
    waviness: float = 1.0,
    regularity: int = 1,
    island: float = 4.0,
    tightness: float = 0.0,
) -> tuple[np.ndarray, Bend]:
    """Touching cells as a label image.

    Args:
        rng: source of randomness.
        shape: height and width in pixels.
        diameter: mean of the cells (of a disc of the same area), in pixels.
        coverage: share of the image that lies in islands; from 1 on there are no gaps.
        stretch: length of the cells over their width.
        waviness: waviness of the borders; 1 is usual.
        regularity: steps of relaxation, see :func:`draw_seeds`.
        island: width of the islands, in diameters.
        tightness: how far their notches and small gaps are filled, in diameters.

    Returns:
        Labels from 1, 0 where no cell is, int32 ``(H, W)``, not all of them in use, and the map that bent the cells.
    """
    bend = draw_bend(rng, shape, diameter, stretch, waviness)
    seeds = draw_seeds(rng, bend.shape, diameter, regularity=regularity, gradient=rng.uniform(0, 0.5))
    own = np.arange(1, len(seeds) + 1)
    if coverage < 1:
        seeds = seeds[_seen(seeds, bend)]
        field = smooth_noise(rng, bend.shape, island * diameter)[tuple(seeds.astype(int).T)]
        field = field + rng.uniform(0, 0.6) * rng.standard_normal(len(field))
        seeds = seeds[np.argsort(-field)[: max(round(coverage * len(seeds)), 3)]]
        own = np.arange(1, len(seeds) + 1)
    # Further seeds beside the first make cells concave.
    more = np.flatnonzero(rng.random(len(seeds)) < rng.uniform(0, 0.5))
    beside = seeds[more] + rng.normal(0, 0.17 * diameter, (len(more), 2))
    owner = np.concatenate([[0], own, own[more]]).astype(np.int32)
    parts, distance = nearest(np.concatenate([seeds, beside]), bend.shape)
    labels = owner[parts]
    if coverage < 1:
        reach = diameter * np.concatenate([[0], rng.uniform(0.42, 0.95, len(own))]).astype(np.float32)
        ragged = 1 + rng.uniform(0, 0.16) * smooth_noise(rng, bend.shape, 0.35 * diameter)
        near = (distance <= reach[labels] * ragged).astype(np.float32)
        if tightness:
            near = cv2.GaussianBlur(near, (0, 0), tightness * diameter)
        labels[near <= 0.45] = 0
    return bend.lay(labels.astype(np.float32), cv2.INTER_NEAREST).astype(np.int32), bend
