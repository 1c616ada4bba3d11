"""Outlines of single cells, drawn as binary masks in crops just large enough for them.

Three ways of growing cover what the annotators of the competition outlined: compact bodies with a few corners where
neurites leave (shsy5y, cort), branching cells made of tapering arms (astro), and wide flat cells (astro). Areas follow
log-normal distributions fitted to the published masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.masks.components import largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.simulation.curves import random_paths

CELL_TYPES = ("shsy5y", "astro", "cort")
_SUBPIXEL = 4  # bits after the point that OpenCV's drawing functions take


@dataclass(frozen=True, eq=False)
class CellShape:
    """One cell's outline, not yet placed.

    Attributes:
        mask: bool ``(h, w)``, tight, one 8-connected component.
        tips: float ``(n, 3)``: ``x, y`` in pixels of the crop and the heading in radians of the places where a process
            leaves the cell.
        flat: the cell is spread out thin, so that it gives little contrast.
    """

    mask: np.ndarray
    tips: np.ndarray
    flat: bool = False


def draw_shape(cell_type: str, rng: np.random.Generator) -> CellShape:
    """A random cell of one of :data:`CELL_TYPES`."""
    if cell_type == "cort":
        return _body(
            rng, area=_log_normal(rng, 197, 0.52), elongation=_log_normal(rng, 1.22, 0.2), arms=(0, 4), reach=0.22
        )
    if cell_type == "shsy5y":
        return _body(
            rng, area=_log_normal(rng, 198, 0.56), elongation=_log_normal(rng, 1.5, 0.32), arms=(2, 5), reach=0.85
        )
    kind = rng.random()
    if kind < 0.2:
        return _body(
            rng,
            area=_log_normal(rng, 1500, 0.6),
            elongation=_log_normal(rng, 2.0, 0.4),
            arms=(3, 7),
            reach=0.9,
            flat=True,
        )
    if kind < 0.3:
        return _body(
            rng, area=_log_normal(rng, 380, 0.5), elongation=_log_normal(rng, 1.5, 0.3), arms=(2, 6), reach=0.8
        )
    return _branching(rng, area=_log_normal(rng, 790, 0.66))


def _log_normal(rng: np.random.Generator, median: float, sigma: float) -> float:
    # Cut at 2.3 sigma: the real distributions have no longer tails.
    return median * float(np.exp(sigma * np.clip(rng.standard_normal(), -2.3, 2.3)))


def _body(
    rng: np.random.Generator,
    *,
    area: float,
    elongation: float,
    arms: tuple[int, int],
    reach: float,
    flat: bool = False,
) -> CellShape:
    """A star-convex body: an ellipse with low-frequency bumps and one pointed bulge per arm."""
    angles = np.linspace(0, 2 * np.pi, 72 if flat else 36, endpoint=False)
    # Of an ellipse of area pi, whose half axes are sqrt(elongation) and its inverse.
    radius = 1 / np.sqrt(np.cos(angles) ** 2 / elongation + np.sin(angles) ** 2 * elongation)
    for order in range(2, 6):
        radius *= 1 + 0.09 / order * rng.standard_normal() * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    count = int(rng.integers(*arms))
    # The first two arms leave at the ends of the long axis.
    headings = np.concatenate([[0, np.pi], rng.uniform(0, 2 * np.pi, max(count - 2, 0))])[:count]
    headings = headings + rng.normal(0, 0.25, count)
    for heading, length in zip(headings, reach * rng.gamma(3, 1 / 3, count), strict=True):
        distance = np.abs((angles - heading + np.pi) % (2 * np.pi) - np.pi)
        radius += length * np.exp(-distance / rng.uniform(0.14, 0.3))
    if flat:
        radius *= 1 + 0.05 * rng.standard_normal(len(angles))
    turn = rng.uniform(0, 2 * np.pi)
    points = radius[:, None] * np.stack([np.cos(angles + turn), np.sin(angles + turn)], axis=1)
    x, y = points.T
    size = np.sqrt(area / (0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))))
    at_arms = np.interp(headings, angles, radius, period=2 * np.pi) * size
    headings = headings + turn
    tips = np.stack([at_arms * np.cos(headings), at_arms * np.sin(headings), headings], axis=1)
    return fill([points * size], [], tips, flat)


def _branching(rng: np.random.Generator, *, area: float) -> CellShape:
    """A soma with tapering, bending and forking arms; the length of the arms makes up the area."""
    soma = float(np.clip(_log_normal(rng, 7.2, 0.25), 3.0, 0.4 * np.sqrt(area)))
    count = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.05, 0.45, 0.22, 0.13, 0.09, 0.06]))
    tip_radius = rng.uniform(1.5, 2.3)
    forked = rng.random(count) < 0.35
    shares = rng.dirichlet(np.full(count, 3.0)) * np.where(forked, 0.7, 1.0)
    lengths = np.clip((area - 2.2 * soma**2) * shares / (soma + 1.8 * tip_radius) * 1.3, 8, 120)
    start = rng.uniform(0, 2 * np.pi)
    headings = start + 2 * np.pi * np.arange(count) / count + rng.normal(0, 0.35, count)
    paths = random_paths(rng, np.zeros((count, 2)), headings, lengths, steps=14, bend=0.35)
    polygons, discs, tips = [], [(0.0, 0.0, soma)], []
    for path, length, fork in zip(paths, lengths, forked, strict=True):
        along = np.linspace(0, 1, len(path))
        # Spindles taper evenly, stars have arms that are thin from the soma on.
        widths = tip_radius + (soma - tip_radius) * (1 - along) ** rng.uniform(1.2, 3.5)
        widths *= np.exp(rng.normal(0, 0.1, len(path)))
        polygons.append(ribbon(path, widths))
        discs.append((*path[-1], rng.uniform(0.9, 1.4) * tip_radius))
        tips.append((*path[-1], np.arctan2(*(path[-1] - path[-2])[::-1])))
        if fork:
            at = int(rng.integers(len(path) // 3, len(path) - 3))
            heading = np.arctan2(*(path[at + 1] - path[at])[::-1]) + rng.choice([-1, 1]) * rng.uniform(0.4, 1.2)
            branch = random_paths(
                rng, path[at][None], np.array([heading]), np.array([0.5 * length]), steps=8, bend=0.5
            )[0]
            polygons.append(ribbon(branch, np.linspace(widths[at], 0.8 * tip_radius, len(branch))))
            tips.append((*branch[-1], heading))
    return fill(polygons, discs, np.array(tips))


def ribbon(path: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The outline ``(2n, 2)`` of a band around ``path`` ``(n, 2)`` with the half widths ``radius`` ``(n,)``."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-6)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1) * radius[:, None]
    return np.concatenate([path + normal, (path - normal)[::-1]])


def fill(polygons: list, discs: list, tips: np.ndarray, flat: bool = False) -> CellShape:
    """Draw the union of polygons and discs ``(x, y, radius)`` and crop it."""
    corners = np.concatenate([*polygons, *[[[x - r, y - r], [x + r, y + r]] for x, y, r in discs]])
    origin = np.floor(corners.min(axis=0)) - 1
    w, h = (np.ceil(corners.max(axis=0)) - origin + 2).astype(int)
    canvas = np.zeros((h, w), dtype=np.uint8)
    one = 1 << _SUBPIXEL
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.round((polygon - origin) * one).astype(np.int32)], 1, shift=_SUBPIXEL)
    for x, y, r in discs:
        at = (round((x - origin[0]) * one), round((y - origin[1]) * one))
        cv2.circle(canvas, at, round(r * one), 1, -1, shift=_SUBPIXEL)
    crop = MaskCrop.from_full(largest_component(canvas.astype(bool)))
    tips = np.asarray(tips, dtype=float).reshape(-1, 3) - [origin[0] + crop.left, origin[1] + crop.top, 0]
    return CellShape(np.ascontiguousarray(crop.mask), tips, flat)
