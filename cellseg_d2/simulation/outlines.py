"""Draw outlines of cells that lie alone or over each other: spread, spindly, branched and round ones."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from cellseg_d2.simulation.curves import random_paths
from cellseg_d2.simulation.shapes import fill, ribbon


def spread_cell(rng: np.random.Generator, diameter: float, elongation: float = 1.0) -> np.ndarray:
    """A flat cell that holds on at a few points, with arcs between them: bool ``(h, w)``, one component, tight.

    Args:
        rng: source of randomness.
        diameter: diameter of a disc of about the same area, in pixels.
        elongation: length over width.
    """
    polygon = _anchored(rng, int(rng.integers(3, 10)), elongation, hollow=rng.uniform(0.0, 0.65))
    polygon = polygon * _scale(polygon, diameter)
    count = int(rng.choice([0, 1, 2, 3], p=[0.5, 0.25, 0.15, 0.1]))
    starts = 0.6 * polygon[rng.integers(0, len(polygon), count)]
    lengths = diameter * rng.uniform(0.4, 1.2, count)
    paths = random_paths(rng, starts, np.arctan2(starts[:, 1], starts[:, 0]), lengths, steps=12, bend=0.4)
    tails = [ribbon(path, _taper(rng, 0.2 * diameter, 0.025 * diameter, len(path))) for path in paths]
    return fill([polygon, *tails], [], np.zeros((0, 3))).mask


def _taper(rng: np.random.Generator, stem: float, tip: float, count: int) -> np.ndarray:
    """Half widths ``(count,)`` of a process that gets thinner, with small bulges."""
    tip = max(tip, 0.9)
    widths = tip + (max(stem, tip) - tip) * (1 - np.linspace(0, 1, count)) ** rng.uniform(1.5, 4)
    return widths * np.exp(rng.normal(0, 0.12, count))


def spindle_cell(rng: np.random.Generator, diameter: float, elongation: float) -> np.ndarray:
    """A long cell with pointed ends, straight or bent; see :func:`spread_cell`."""
    half = 0.5 * diameter * np.sqrt(elongation)
    path = random_paths(rng, np.zeros((1, 2)), rng.uniform(0, 2 * np.pi, 1), np.array([2 * half]), steps=24, bend=0.5)
    along = np.linspace(-1, 1, 25) + 0.25 * rng.uniform(-1, 1)
    widths = (1 - np.clip(np.abs(along), 0, 1) ** rng.uniform(1.0, 2.2)) ** rng.uniform(0.8, 2.6)
    widths = 0.62 * diameter / np.sqrt(elongation) * widths * np.exp(0.08 * rng.standard_normal(25)) + 0.9
    return fill([ribbon(path[0], widths)], [], np.zeros((0, 3))).mask


def stellate_cell(rng: np.random.Generator, diameter: float) -> np.ndarray:
    """A small body with long, thin arms, some of which fork; ``diameter`` is what they span, in pixels."""
    body = diameter * rng.uniform(0.12, 0.3)
    polygon = _anchored(rng, int(rng.integers(3, 7)), rng.uniform(1, 2), hollow=0.25)
    polygon = polygon * _scale(polygon, body)
    count = int(rng.choice([2, 3, 4, 5, 6, 7], p=[0.32, 0.28, 0.18, 0.12, 0.06, 0.04]))
    headings = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.arange(count) / count + rng.normal(0, 0.4, count)
    lengths = 0.55 * diameter * np.clip(rng.gamma(5, 1 / 5, count), 0.25, 2)
    paths = random_paths(rng, np.zeros((count, 2)), headings, lengths, steps=18, bend=0.55)
    tip = max(rng.uniform(0.009, 0.02) * diameter, 1.1)
    polygons, discs = [polygon], []
    for path, length in zip(paths, lengths, strict=True):
        widths = _taper(rng, rng.uniform(0.25, 0.6) * body, tip, len(path))
        polygons.append(ribbon(path, widths))
        if rng.random() < 0.5:  # feet at the ends
            discs.append((*path[-1], tip * rng.uniform(1.0, 2.2)))
        for at in rng.integers(6, len(path) - 2, rng.poisson(0.35)):
            heading = np.arctan2(*(path[at + 1] - path[at])[::-1]) + rng.choice([-1, 1]) * rng.uniform(0.3, 1.0)
            twig = random_paths(
                rng, path[at][None], np.array([heading]), np.array([length * rng.uniform(0.2, 0.6)]), steps=8, bend=0.5
            )[0]
            polygons.append(ribbon(twig, np.linspace(widths[at], 0.9 * tip, len(twig))))
    return fill(polygons, discs, np.zeros((0, 3))).mask


def round_cell(rng: np.random.Generator, diameter: float) -> np.ndarray:
    """A rounded cell, with blebs at times; see :func:`spread_cell`."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    stretch = np.exp(np.abs(rng.normal(0, 0.1)))
    radius = 0.5 * diameter / np.sqrt(np.cos(angles) ** 2 / stretch + np.sin(angles) ** 2 * stretch)
    for order in (2, 3, 4):
        radius = radius * (1 + 0.02 * rng.standard_normal() * np.cos(order * angles + rng.uniform(0, 2 * np.pi)))
    turned = angles + rng.uniform(0, 2 * np.pi)
    discs = []
    for _ in range(rng.poisson(0.3)):
        k, size = int(rng.integers(len(angles))), rng.uniform(0.08, 0.2) * diameter
        discs.append((radius[k] * np.cos(turned[k]), radius[k] * np.sin(turned[k]), size))
    polygon = radius[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=1)
    return fill([polygon], discs, np.zeros((0, 3))).mask


def _anchored(rng: np.random.Generator, count: int, elongation: float, hollow: float) -> np.ndarray:
    """The outline ``(n, 2)`` through ``count`` anchors, with arcs between that bend in (``hollow``) or out."""
    steps = 14
    angles = np.sort(2 * np.pi * (np.arange(count) + rng.uniform(-0.38, 0.38, count)) / count)
    radius = np.exp(rng.normal(0, 0.25, count))
    anchors = radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    following = np.roll(anchors, -1, axis=0)
    # Quadratic Bézier arcs: the control point of a straight one is its middle.
    gap = np.diff(angles, append=angles[0] + 2 * np.pi)
    outward = 0.5 / np.maximum(np.cos(np.minimum(gap, 2.0) / 2), 0.4)
    bulge = np.where(rng.random(count) < 0.25 + hollow, rng.uniform(0.3, 1.0, count), rng.uniform(1.0, 1.25, count))
    control = outward[:, None] * (anchors + following) * bulge[:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    points = (1 - t) ** 2 * anchors + 2 * t * (1 - t) * control + t**2 * following
    # Some edges are ruffled.
    ruffle = np.where(rng.random(count) < 0.4, rng.uniform(0.01, 0.05, count), 0.008)
    points = points * (1 + ruffle * rng.standard_normal((steps, count)))[..., None]
    outline = points.transpose(1, 0, 2).reshape(-1, 2)
    # Round the corners.
    kernel = cv2.getGaussianKernel(9, rng.uniform(0.5, 2.2)).ravel()
    outline = ndimage.convolve1d(outline, kernel, axis=0, mode="wrap")
    turn = rng.uniform(0, 2 * np.pi)
    outline = outline * [np.sqrt(elongation), 1 / np.sqrt(elongation)]
    return outline @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _scale(polygon: np.ndarray, diameter: float) -> float:
    """The factor that gives the polygon the area of a disc of ``diameter``."""
    x, y = polygon.T
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    return diameter * np.sqrt(np.pi / 4 / max(area, 1e-6))
