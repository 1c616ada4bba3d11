"""Normalise the shape of one cell's mask: turn, mirror and scale it so that similar shapes look alike."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.masks.crop import MaskCrop

# Background around a normalised shape, in cells of the grid.
MARGIN = 2


@dataclass(frozen=True)
class Pose:
    """How a shape lies in its image: what normalising it has removed.

    Attributes:
        scale: pixels of the image per cell of the grid.
        angle: direction of the long axis in radians, from x towards y, in -π/2 … π/2.
        mirrored: signs of the long and of the short axis: -1 where it was mirrored.
    """

    scale: float
    angle: float
    mirrored: tuple[int, int]


def normalize_shape(mask: np.ndarray, size: int = 32) -> tuple[np.ndarray, Pose]:
    """Turn the long axis of a mask to x, mirror its longer tails to the right and down, and scale it to fill a grid.

    The axes are those of the second central moments, the tails are told by the third ones. The scale is that of the
    larger side, so that the longer one of them leaves :data:`MARGIN` cells of the grid free at either end.

    Args:
        mask: bool ``(h, w)`` with at least one pixel.
        size: size of the grid, more than twice :data:`MARGIN`.

    Returns:
        The share of each cell of the grid that is covered, float32 ``(size, size)`` in 0…1, and what was undone.
    """
    pixels = mask.view(np.uint8)
    moments = cv2.moments(pixels, binaryImage=True)
    angle = 0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    cos, sin = np.cos(angle), np.sin(angle)
    skewness = (_third(moments, cos, sin), _third(moments, -sin, cos))
    signs = tuple(1 if value >= 0 else -1 for value in skewness)
    axes = np.array([[cos, sin], [-sin, cos]]) * np.array(signs)[:, None]
    y, x = np.nonzero(mask)
    along = axes @ np.stack([x, y])  # (2, n), centres of the pixels
    low, high = along.min(axis=1), along.max(axis=1)
    sides = high - low + np.abs(axes).sum(axis=1)  # of whole pixels
    scale = float(sides.max()) / (size - 2 * MARGIN)
    # Where many pixels fall into one cell of the grid they are averaged first, so that none is left out; where one
    # fills many, it is repeated, so that the interpolation between pixels does not carry it beyond its own.
    factor, times = max(int(scale), 1), max(int(1 / scale), 1)
    padded = [[1, 1 + -(length + 2) % factor] for length in mask.shape]
    source = np.pad(pixels, padded).astype(np.float32)
    if factor > 1:
        source = cv2.resize(source, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    elif times > 1:
        source = source.repeat(times, axis=0).repeat(times, axis=1)
    # From the centre of a cell of the grid, of half the width, to the middle of the shape's box and on to `source`.
    cell = scale / 2
    middle = axes.T @ ((low + high) / 2)
    matrix = np.empty((2, 3))
    matrix[:, :2] = axes.T * cell * times / factor
    matrix[:, 2] = (middle - axes.T @ np.full(2, cell * (size - 0.5)) + 1.5) * times / factor - 0.5
    fine = cv2.warpAffine(
        source, matrix, (2 * size, 2 * size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=0
    )
    grid = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return grid, Pose(scale, float(angle), (signs[0], signs[1]))


def _third(moments: dict, x: float, y: float) -> float:
    """The third central moment along a direction."""
    return (
        x**3 * moments["mu30"]
        + 3 * x**2 * y * moments["mu21"]
        + 3 * x * y**2 * moments["mu12"]
        + y**3 * moments["mu03"]
    )


def draw_normalized(grid: np.ndarray, pose: Pose) -> np.ndarray:
    """The inverse of :func:`normalize_shape`: the mask of a normalised shape in a pose, bool ``(h, w)``.

    Args:
        grid: float ``(size, size)``; what is at least 0.5 is inside.
        pose: where the shape came from, or any other.
    """
    size = len(grid)
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    axes = np.array([[cos, sin], [-sin, cos]]) * np.array(pose.mirrored)[:, None] / pose.scale
    side = int(np.ceil(size * pose.scale * np.sqrt(2))) + 1
    offset = (size - 1) / 2 - axes @ np.full(2, (side - 1) / 2)
    matrix = np.column_stack([axes, offset])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    soft = cv2.warpAffine(grid.astype(np.float32), matrix, (side, side), flags=flags, borderValue=0)
    return np.ascontiguousarray(MaskCrop.from_full(soft >= 0.5).mask)
