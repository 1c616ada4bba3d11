"""Group pixels into cells by following a field that points toward the cells' centres."""

from __future__ import annotations

import cv2
import numpy as np

# Steps of a pixel that are computed one by one; whole walks are joined from these.
_STEPS = 12
# Doublings of the walk: 12 · 2⁸ steps are enough for any cell.
_DOUBLINGS = 8
# Squares of this size touch where walks end within two pixels of each other, which is then the same place.
_NEAR = np.ones((2, 2), np.uint8)


def follow_flows(field: np.ndarray, inside: np.ndarray, min_pixels: int = 1) -> np.ndarray:
    """Label each pixel by the place to which the field leads it.

    A pixel walks along the interpolated field in steps of one pixel (Euler's method). After a few steps it is at
    another foreground pixel, whose own walk is already known: joining the two doubles the length of the walk, so that
    hundreds of steps cost little more than the first few.

    Args:
        field: float32 ``(2, H, W)``, x and y in pixels, at most about 1 long.
        inside: bool ``(H, W)``, the foreground.
        min_pixels: cells with fewer pixels are background.

    Returns:
        int32 ``(H, W)``, 0 for background, cells from 1 on.
    """
    labels = np.zeros(inside.shape, dtype=np.int32)
    places = np.flatnonzero(inside)
    if len(places) == 0:
        return labels
    number = np.full(inside.size, -1, dtype=np.int64)
    number[places] = np.arange(len(places))
    ends = number[_walk(field, inside, places)]
    for _ in range(_DOUBLINGS):
        ends = ends[ends]
    sink = _sinks(places[ends], inside.shape)
    sizes = np.bincount(sink)
    kept = sizes >= min_pixels
    kept[0] = False
    new = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    labels.ravel()[places] = new[sink]
    return labels


def _walk(field: np.ndarray, inside: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The last place of the foreground that each pixel comes to in a few steps, flat positions ``(P,)``."""
    height, width = inside.shape
    flow = np.ascontiguousarray(_continued(field, inside).transpose(1, 2, 0))
    # OpenCV takes maps of at most 32767 rows and columns: the pixels are laid out in rows of 1024.
    rows = -(-len(places) // 1024)
    start = np.resize(places, rows * 1024)
    y, x = (axis.reshape(rows, 1024).astype(np.float32) for axis in np.divmod(start, width))
    last = start.reshape(rows, 1024)
    for _ in range(_STEPS):
        step = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x = np.clip(x + step[:, :, 0], 0, width - 1)
        y = np.clip(y + step[:, :, 1], 0, height - 1)
        now = np.rint(y).astype(np.int64) * width + np.rint(x).astype(np.int64)
        last = np.where(inside.ravel()[now], now, last)
    return last.ravel()[: len(places)]


def _continued(field: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The field of the foreground, and around it the mean of its neighbours', so that nothing is held at an outline."""
    weight = inside.astype(np.float32)
    total = cv2.blur(weight, (3, 3), borderType=cv2.BORDER_CONSTANT)
    return np.stack(
        [
            np.where(
                inside, axis, cv2.blur(axis * weight, (3, 3), borderType=cv2.BORDER_CONSTANT) / np.maximum(total, 0.05)
            )
            for axis in field.astype(np.float32)
        ]
    )


def _sinks(ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Number of the place in which each walk ends, from 1 on, int64 ``(P,)``; places next to each other are one."""
    reached = np.zeros(shape, dtype=np.uint8)
    reached.ravel()[ends] = 1
    near = cv2.dilate(reached, _NEAR)
    return cv2.connectedComponents(near, connectivity=8)[1].ravel()[ends].astype(np.int64)
