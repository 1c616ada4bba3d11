"""Draw dirt, which is not annotated: dust, debris, fibres, bubbles, smears."""

from __future__ import annotations

import cv2
import numpy as np

from cellseg_d2.simulation import clutter
from cellseg_d2.simulation.curves import random_paths
from cellseg_d2.simulation.layout import REFERENCE_PIXELS
from cellseg_d2.simulation.noise import smooth_noise


def add_dirt(thickness: np.ndarray, rng: np.random.Generator, amount: float) -> None:
    """Add dirt to the optical ``thickness``, float32 ``(H, W)``, changed in place; 1 is the usual ``amount``."""
    shape, share = thickness.shape, amount * thickness.size / REFERENCE_PIXELS
    # Each kind is there or not, so that pictures differ in kind and not only in amount.
    dust, beads, clumps, rings, fibres, bubbles, smears = rng.gamma(0.7, 1 / 0.7, 7) * share
    clutter.draw_dust(thickness, rng, 100 * dust)
    clutter.draw_out_of_focus(thickness, rng, 1.5 * rings)
    places = clutter.scatter(rng, shape, 20 * beads)
    clutter.draw_grains(
        thickness, rng, places, rng.gamma(3, 10, len(places)), radii=(1.2, 3.5), rim=rng.uniform(0, 0.7)
    )
    clutter.draw_clumps(thickness, rng, clutter.scatter(rng, shape, 5 * clumps), grains=rng.uniform(2, 9), level=35)
    _draw_fibres(thickness, rng, 0.5 * fibres)
    for y, x in clutter.scatter(rng, shape, 0.4 * bubbles):
        radius = np.exp(rng.uniform(np.log(5), np.log(60)))
        ring = np.zeros(shape, dtype=np.uint8)
        cv2.circle(ring, (round(8 * x), round(8 * y)), round(8 * radius), 255, int(rng.integers(1, 5)), cv2.LINE_AA, 3)
        thickness += rng.normal(0, 25) / 255 * cv2.GaussianBlur(ring, (0, 0), rng.uniform(0.6, 2)).astype(np.float32)
    if rng.random() < 0.08 * min(smears, 3):
        film = np.maximum(smooth_noise(rng, shape, rng.uniform(30, 200)) - rng.uniform(0.3, 1.2), 0)
        thickness += rng.normal(0, 5) * film * (1 + 0.4 * smooth_noise(rng, shape, rng.uniform(2, 8)))


def _draw_fibres(thickness: np.ndarray, rng: np.random.Generator, count: float) -> None:
    starts = clutter.scatter(rng, thickness.shape, count)[:, ::-1]
    n = len(starts)
    if n:
        lengths = np.exp(rng.uniform(np.log(15), np.log(400), n))
        paths = random_paths(rng, starts, rng.uniform(0, 2 * np.pi, n), lengths, steps=24, bend=1.2)
        clutter.draw_paths(thickness, paths, int(rng.integers(1, 4)), rng.gamma(3, 10, n))


def add_bright_specks(dye: np.ndarray, rng: np.random.Generator, amount: float) -> None:
    """Add specks that fluoresce to the ``dye``, float32 ``(H, W)``, changed in place; see :func:`add_dirt`."""
    places = clutter.scatter(rng, dye.shape, 15 * amount * dye.size / REFERENCE_PIXELS)
    clutter.draw_grains(dye, rng, places, rng.gamma(2, 0.3, len(places)), radii=(1.0, 3.5), rim=0.0)
