"""Find the edges and nuclei of all cells of a label image at once."""

from __future__ import annotations

import cv2
import numpy as np


class Anatomy:
    """Edges and nuclei of the cells of one label image.

    Attributes:
        count: number of labels, including 0.
        depth: distance of each pixel to the edge of its cell, float32 ``(H, W)``.
        to_contact: distance to the nearest line where two cells touch.
        to_free: distance to the nearest pixel without a cell.
        pixels: flat indices of the cells' pixels, ``(n,)``.
        label, y, x: label and place of these pixels, ``(n,)``.
        nuclear: their distance from the middle of the nucleus, ``(n,)``; 1 on its outline.
        nucleus: how far they belong to it, 0 to 1, ``(n,)``.
        area: area of each label in pixels, ``(count,)``.
        center: centre of each nucleus as ``y, x``, ``(count, 2)``.
        axes: its half axes, the long one first, ``(count, 2)``.
        turn: direction of the long one in radians, ``(count,)``.

    Args:
        labels: int32 ``(H, W)``, 0 where no cell is.
        rng: source of randomness.
        share: radius of the nuclei over that of the cells, about.
    """

    def __init__(self, labels: np.ndarray, rng: np.random.Generator, share: float) -> None:
        count = int(labels.max()) + 1
        self.count = count
        cell = labels > 0
        differs = np.zeros(labels.shape, dtype=bool)
        contact = np.zeros(labels.shape, dtype=bool)
        for here, there in (
            ((slice(1, None), slice(None)), (slice(-1), slice(None))),
            ((slice(None), slice(1, None)), (slice(None), slice(-1))),
        ):
            unlike = labels[here] != labels[there]
            differs[here] |= unlike
            differs[there] |= unlike
            contact[here] |= unlike & cell[here] & cell[there]
        # Smoothed, as a distance from pixels is angular.
        self.depth = cv2.GaussianBlur(_distance(cell & ~differs), (0, 0), 0.8)
        self.to_contact = _distance(~contact)
        self.to_free = cv2.GaussianBlur(_distance(cell), (0, 0), 0.6)
        self.pixels = np.flatnonzero(cell)
        self.label = labels.ravel()[self.pixels]
        self.y, self.x = (axis.astype(np.float32) for axis in np.divmod(self.pixels, labels.shape[1]))
        self._place_nuclei(rng, share)

    def _place_nuclei(self, rng: np.random.Generator, share: float) -> None:
        label, count = self.label, self.count
        self.area = np.bincount(label, minlength=count).astype(float)
        weight = self.at_cells(self.depth) ** 2 + 1e-3
        total = np.maximum(np.bincount(label, weight, count), 1e-6)
        cx, cy = (np.bincount(label, weight * axis, count) / total for axis in (self.x, self.y))
        dx, dy = self.x - cx[label], self.y - cy[label]
        xx, xy, yy = (np.bincount(label, weight * p, count) / total for p in (dx * dx, dx * dy, dy * dy))
        # Axes of the cell: nuclei lie along them, less elongated.
        turn = 0.5 * np.arctan2(2 * xy, xx - yy)
        mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        ratio = np.sqrt(np.sqrt((mean + spread + 0.3) / np.maximum(mean - spread, 0.3)))
        ratio = np.clip(ratio * np.exp(rng.normal(0, 0.08, count)), 1, 2.4)
        deepest = np.zeros(count)
        np.maximum.at(deepest, label, self.at_cells(self.depth))
        radius = np.minimum(share * np.sqrt(self.area / np.pi), 0.85 * deepest) * np.exp(rng.normal(0, 0.1, count))
        radius = np.maximum(radius, 1.0)
        shift = rng.normal(0, 0.25, (2, count)) * radius
        self.center = np.stack([cy + shift[0], cx + shift[1]], axis=1)
        self.axes = np.stack([radius * np.sqrt(ratio), radius / np.sqrt(ratio)], axis=1)
        self.turn = turn
        dx, dy = self.x - self.center[label, 1].astype(np.float32), self.y - self.center[label, 0].astype(np.float32)
        cos, sin = np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)
        long, wide = (1 / self.axes.T).astype(np.float32)
        along, across = cos[label] * dx + sin[label] * dy, cos[label] * dy - sin[label] * dx
        self.nuclear = np.hypot(along * long[label], across * wide[label])
        self.nucleus = 1 / (1 + np.exp(np.clip(9 * (self.nuclear - 1), -20, 20)))

    def at_cells(self, field: np.ndarray) -> np.ndarray:
        """The values ``(n,)`` of ``field`` ``(H, W)`` at the cells' pixels."""
        return field.ravel()[self.pixels]

    def each(self, rng: np.random.Generator, mean: float, spread: float) -> np.ndarray:
        """A log-normal value for each cell, at its pixels, float32 ``(n,)``."""
        return (mean * np.exp(rng.normal(0, spread, self.count))).astype(np.float32)[self.label]

    def places_in_nuclei(self, rng: np.random.Generator, which: np.ndarray, reach: float) -> np.ndarray:
        """A random place ``(n, 2)`` (``y, x``) in the nucleus of each of the cells ``which`` ``(n,)``."""
        angle, radius = rng.uniform(0, 2 * np.pi, len(which)), reach * np.sqrt(rng.random(len(which)))
        u, v = (radius * np.stack([np.cos(angle), np.sin(angle)])) * self.axes[which].T
        cos, sin = np.cos(self.turn[which]), np.sin(self.turn[which])
        return self.center[which] + np.stack([sin * u + cos * v, cos * u - sin * v], axis=1)


def _distance(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel to the nearest one that is not ``inside``, far where there is none."""
    if inside.all():
        return np.full(inside.shape, 1e3, dtype=np.float32)
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
