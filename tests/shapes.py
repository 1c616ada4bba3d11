"""Drawn cells of known shape, for what is done to fields and masks."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import KDTree

from cellseg_d2.masks.crop import MaskCrop


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of all pixels, ``(size, size)`` each."""
    return np.mgrid[:size, :size].astype(np.float64)


def box(x: int, y: int, width: int, height: int) -> MaskCrop:
    """A filled rectangle, whose first pixel is in column ``x``, row ``y``."""
    return MaskCrop(y, x, np.ones((height, width), bool))


def disc(size: int, y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = grid(size)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def star(size: int, y: float, x: float, arms: int, length: float, width: int) -> np.ndarray:
    """A body with thin straight arms."""
    image = disc(size, y, x, 2 * width).astype(np.uint8)
    for angle in np.arange(arms) * 2 * np.pi / arms + 0.3:
        end = int(x + length * np.cos(angle)), int(y + length * np.sin(angle))
        cv2.line(image, (int(x), int(y)), end, 1, width)
    return image > 0


def arc(size: int, y: float, x: float, radius: float, width: float, half_angle: float) -> np.ndarray:
    """Part of a ring, which opens to the left; angles in radians from its middle, to the right of ``(y, x)``."""
    rows, columns = grid(size)
    distance, angle = np.hypot(rows - y, columns - x), np.arctan2(rows - y, columns - x)
    return (np.abs(distance - radius) <= width / 2) & (np.abs(angle) <= half_angle)


def crowd(size: int, number: int, radius: float, seed: int = 0) -> np.ndarray:
    """Touching convex cells without gaps, int32 labels ``(size, size)``: discs cut where neighbours are nearer."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, size, (number, 2))
    distance, nearest = KDTree(centres).query(np.moveaxis(np.mgrid[:size, :size], 0, -1))
    return np.where(distance <= radius, nearest + 1, 0).astype(np.int32)


def label_discs(shape: tuple[int, int], *cells: tuple[float, float, float]) -> np.ndarray:
    """Discs ``(y, x, radius)``, int32 labels of ``shape``."""
    labels = np.zeros(shape, dtype=np.int32)
    rows, columns = np.indices(shape)
    for number, (y, x, radius) in enumerate(cells, start=1):
        labels[np.hypot(rows - y, columns - x) <= radius] = number
    return labels


def scattered_discs(number: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Overlapping discs, bool ``(number, height, width)``; some are cut by the border, none is empty."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    centres, radii = rng.uniform([0, 0], [height, width], (number, 2)), rng.uniform(2, 12, number)
    return np.stack([(y - cy) ** 2 + (x - cx) ** 2 < r**2 for (cy, cx), r in zip(centres, radii, strict=True)])
