"""Random fields: smooth ones, and points spread over the pixels around them."""

from __future__ import annotations

import cv2
import numpy as np


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """A random field that changes over ``scale`` pixels; float32 of ``shape``, zero mean and unit variance, roughly.

    It is drawn on a grid of that spacing and interpolated, so that wide scales cost next to nothing.
    """
    height, width = shape
    scale = max(scale, 1.0)
    rows, columns = int(np.ceil(height / scale)) + 3, int(np.ceil(width / scale)) + 3
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    shift = rng.random(2)
    matrix = np.array([[1 / scale, 0, 1 + shift[0]], [0, 1 / scale, 1 + shift[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    # Interpolation between independent values takes about a quarter of their variance.
    return 1.16 * cv2.warpAffine(grid, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def splat(field: np.ndarray, places: np.ndarray, weights: np.ndarray) -> None:
    """Add ``weights`` ``(n,)`` to ``field`` ``(H, W)`` at ``places`` ``(n, 2)`` (``y, x``), shared by four pixels.

    Places outside the field are left out.
    """
    height, width = field.shape
    corner = np.floor(places).astype(int)
    inside = (corner >= 0).all(axis=1) & (corner[:, 0] < height - 1) & (corner[:, 1] < width - 1)
    corner, part, weights = corner[inside], (places - corner)[inside], weights[inside]
    for dy in (0, 1):
        for dx in (0, 1):
            share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
            np.add.at(field, (corner[:, 0] + dy, corner[:, 1] + dx), (weights * share).astype(np.float32))


def draw_spots(field: np.ndarray, places: np.ndarray, peaks: np.ndarray, radius: float, rim: float = 0.0) -> None:
    """Add round soft spots to ``field``.

    Args:
        field: float32 ``(H, W)``, changed in place.
        places: ``(n, 2)`` as ``y, x``.
        peaks: ``(n,)`` value in the middle of each.
        radius: at which they fall to 60 %, in pixels.
        rim: strength of a rim of the other sign around them, relative to the middle.
    """
    if len(places) == 0:
        return
    points = np.zeros_like(field)
    splat(points, places, peaks * 2 * np.pi * radius**2)
    spots = cv2.GaussianBlur(points, (0, 0), radius)
    if rim:
        spots = (1 + rim) * spots - 2.56 * rim * cv2.GaussianBlur(points, (0, 0), 1.6 * radius)
    field += spots
