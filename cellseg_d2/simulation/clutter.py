"""Draw what a culture contains besides cells: neurites, dead cells and their debris, dust, out-of-focus matter.

All of it is drawn into the thickness field and none of it is annotated, as in the competition's data.
"""

from __future__ import annotations

import cv2
import numpy as np

from cellseg_d2.simulation.curves import random_paths
from cellseg_d2.simulation.optics import band_noise

_SUBPIXEL = 4


def draw_paths(thickness: np.ndarray, paths: np.ndarray, width: int, level: np.ndarray) -> None:
    """Add lines to the thickness field.

    Args:
        thickness: float32 ``(H, W)``, changed in place.
        paths: ``(n, steps + 1, 2)`` as ``x, y``.
        width: width of the lines in pixels.
        level: ``(n,)`` thickness of each path, at most 64.
    """
    layer = np.zeros(thickness.shape, dtype=np.uint8)
    points = np.round(paths * (1 << _SUBPIXEL)).astype(np.int32)
    for line, value in zip(points, np.clip(4 * level, 0, 255), strict=True):
        cv2.polylines(layer, [line], False, float(value), width, cv2.LINE_AA, _SUBPIXEL)
    thickness += layer.astype(np.float32) / 4


def grow_neurites(
    thickness: np.ndarray, rng: np.random.Generator, tips: np.ndarray, *, length: float, level: float, stem: int = 2
) -> None:
    """Neurites that leave the cells at ``tips`` ``(n, 3)`` (``x, y``, heading), thick at first, then thin.

    Args:
        thickness: float32 ``(H, W)``, changed in place.
        rng: source of randomness.
        tips: where they begin.
        length: mean length in pixels.
        level: mean thickness.
        stem: width at the beginning in pixels.
    """
    n = len(tips)
    if n == 0:
        return
    lengths = np.clip(rng.gamma(1.6, length / 1.6, n), 6, 6 * length)
    levels = level * np.clip(rng.gamma(4, 1 / 4, n), 0.3, 2.5)
    # They begin inside the cell, so that body and neurite run into each other.
    starts = tips[:, :2] - 4 * np.stack([np.cos(tips[:, 2]), np.sin(tips[:, 2])], axis=1)
    paths = random_paths(rng, starts, tips[:, 2] + rng.normal(0, 0.15, n), lengths, steps=15, bend=0.9)
    draw_paths(thickness, paths, 1, levels)
    for width in range(2, stem + 1):
        draw_paths(thickness, paths[:, : 18 // width], width, 0.6 * levels)
    knots = paths[:, 5:].reshape(-1, 2)[rng.random(11 * n) < 0.02, ::-1]
    draw_grains(thickness, rng, knots, rng.gamma(4, 0.5 * level, len(knots)), radii=(1.2, 2.0), rim=0.4)
    forked = np.flatnonzero(rng.random(n) < 0.35)
    joints = rng.integers(5, 14, len(forked))
    delta = paths[forked, joints + 1] - paths[forked, joints]
    headings = np.arctan2(delta[:, 1], delta[:, 0]) + rng.choice([-1, 1], len(forked)) * rng.uniform(
        0.3, 1.0, len(forked)
    )
    twigs = random_paths(rng, paths[forked, joints], headings, 0.5 * lengths[forked], steps=8, bend=0.6)
    draw_paths(thickness, twigs, 1, 0.8 * levels[forked])


def _grain_bank(rng: np.random.Generator, radii: tuple[float, float], rim: float, count: int = 48) -> list[np.ndarray]:
    """Dense grains, dark in the picture, with an uneven bright rim ``rim`` times as strong; float32, peak about 1."""
    bank = []
    for radius in rng.uniform(*radii, count):
        half = int(np.ceil(radius + 4))
        shift = rng.uniform(-0.5, 0.5, 2)
        y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
        y, x = y - shift[0], x - shift[1]
        distance, angle = np.hypot(y, x), np.arctan2(y, x)
        ring = np.exp(-(((distance - radius - 0.3) / 0.85) ** 2))
        ring *= 1 + 0.35 * np.cos(rng.integers(1, 4) * angle + rng.uniform(0, 2 * np.pi))
        core = np.zeros_like(ring)
        for _ in range(int(rng.integers(1, 4)) if radius > 1.8 else 1):
            at = rng.normal(0, 0.25 * radius, 2) if radius > 1.8 else (0, 0)
            size = 0.55 * radius * rng.uniform(0.6, 1.1)
            core = np.maximum(core, 1 / (1 + np.exp((np.hypot(y - at[0], x - at[1]) - size) / 0.3)))
        bank.append((core - rim * ring * (1 - core)).astype(np.float32))
    return bank


def draw_grains(
    thickness: np.ndarray,
    rng: np.random.Generator,
    places: np.ndarray,
    levels: np.ndarray,
    *,
    radii: tuple[float, float],
    rim: float,
) -> None:
    """Add grains to the thickness field.

    Args:
        thickness: float32 ``(H, W)``, changed in place; grains whose patch does not fit inside are left out.
        rng: source of randomness.
        places: ``(n, 2)`` as ``y, x``.
        levels: ``(n,)`` thickness in the middle.
        radii: smallest and largest, in pixels.
        rim: strength of the bright rim relative to the middle.
    """
    if len(places) == 0:
        return
    height, width = thickness.shape
    bank = _grain_bank(rng, radii, rim, count=min(48, len(places)))
    for (y, x), level, which in zip(places.astype(int), levels, rng.integers(0, len(bank), len(places)), strict=True):
        grain = bank[which]
        size = len(grain)
        top, left = y - size // 2, x - size // 2
        if top >= 0 and left >= 0 and top + size <= height and left + size <= width:
            thickness[top : top + size, left : left + size] += np.float32(level) * grain


def scatter(rng: np.random.Generator, shape: tuple[int, int], count: float) -> np.ndarray:
    """Even random places ``(n, 2)`` as ``y, x`` with n of mean ``count``."""
    return rng.random((rng.poisson(count), 2)) * shape


def draw_dust(thickness: np.ndarray, rng: np.random.Generator, count: float) -> None:
    """Faint specks everywhere."""
    places = scatter(rng, thickness.shape, count)
    draw_grains(thickness, rng, places, rng.gamma(2, 7, len(places)), radii=(1.0, 1.8), rim=0.1)


def draw_clumps(
    thickness: np.ndarray, rng: np.random.Generator, centers: np.ndarray, *, grains: float, level: float
) -> None:
    """Clumps of debris around ``centers`` ``(n, 2)`` (``y, x``): grains of mixed size, some bright."""
    sizes = 1 + rng.poisson(rng.gamma(2, grains / 2, len(centers)))
    spread = (1.5 * np.sqrt(sizes))[:, None] * rng.uniform(0.5, 1.0, (len(centers), 2))
    places = np.repeat(centers, sizes, axis=0) + rng.standard_normal((sizes.sum(), 2)) * np.repeat(
        spread, sizes, axis=0
    )
    levels = rng.gamma(3, level / 3, len(places)) * np.where(rng.random(len(places)) < 0.3, -0.7, 1.0)
    draw_grains(thickness, rng, places, levels, radii=(1.3, 3.6), rim=0.5)


def draw_dead_cells(thickness: np.ndarray, rng: np.random.Generator, centers: np.ndarray, *, level: float) -> None:
    """Round shrunken cells around ``centers`` ``(n, 2)`` (``y, x``): a bright frame filled with dark grains."""
    n = len(centers)
    draw_grains(thickness, rng, centers, np.full(n, 0.3 * level), radii=(4.0, 7.0), rim=1.3)
    sizes = rng.integers(3, 9, n)
    distance = 4 * np.sqrt(rng.random(sizes.sum()))
    turn = rng.uniform(0, 2 * np.pi, sizes.sum())
    places = np.repeat(centers, sizes, axis=0) + distance[:, None] * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    draw_grains(thickness, rng, places, rng.gamma(3, level / 4, len(places)), radii=(1.2, 2.2), rim=0.3)


def draw_floating_cells(thickness: np.ndarray, rng: np.random.Generator, count: float) -> None:
    """Add dead cells, alone and in clusters of a few: round, 8 to 20 pixels wide, dark and grainy in a bright halo.

    Args:
        thickness: float32 ``(H, W)``, changed in place.
        rng: source of randomness.
        count: mean number of cells; a field has between none and some times as many.
    """
    clusters = scatter(rng, thickness.shape, rng.gamma(1.5, count / 1.5) / 1.6)
    sizes = 1 + rng.poisson(0.6, len(clusters))
    places = np.repeat(clusters, sizes, axis=0)
    radii = rng.uniform(3.5, 9.5, len(places))
    places += rng.normal(0, 1, places.shape) * (np.repeat(sizes > 1, sizes) * 1.2 * radii)[:, None]
    for (y, x), radius, level in zip(places, radii, rng.gamma(5, 22, len(places)), strict=True):
        half = int(radius + 5)
        top, left = int(y) - half, int(x) - half
        rows, columns = np.ogrid[-half : half + 1, -half : half + 1]
        squeeze = rng.uniform(0.85, 1.15)
        distance = np.hypot(rows * squeeze, columns / squeeze)
        inside = 1 / (1 + np.exp((distance - radius) / 0.5))
        halo = np.exp(-(((distance - radius - 0.8) / 1.3) ** 2))
        grains = band_noise(rng, distance.shape, 0.7, 1.8) * rng.uniform(0.2, 0.8)
        patch = inside * (rng.uniform(0.15, 0.6) + grains) - rng.uniform(0.3, 0.9) * halo * (1 - inside)
        seen = thickness[max(top, 0) : top + 2 * half + 1, max(left, 0) : left + 2 * half + 1]
        cut = patch[max(-top, 0) :, max(-left, 0) :][: seen.shape[0], : seen.shape[1]]
        seen[: cut.shape[0], : cut.shape[1]] += (level * cut).astype(np.float32)


def draw_out_of_focus(thickness: np.ndarray, rng: np.random.Generator, count: float) -> None:
    """A few wide, weak rings: matter that floats above the cells."""
    for y, x in scatter(rng, thickness.shape, count):
        radius, width = rng.uniform(6, 22), rng.uniform(2.0, 4.0)
        half = int(radius + 3 * width)
        top, left = max(int(y) - half, 0), max(int(x) - half, 0)
        patch = thickness[top : int(y) + half + 1, left : int(x) + half + 1]
        rows, columns = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
        distance = np.hypot(rows - y, columns - x)
        patch += np.float32(rng.normal(0, 12)) * np.exp(-(((distance - radius) / width) ** 2)).astype(np.float32)
