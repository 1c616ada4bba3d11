"""Smooth random curves, many at once: arms of cells and neurites."""

from __future__ import annotations

import numpy as np


def random_paths(
    rng: np.random.Generator, starts: np.ndarray, headings: np.ndarray, lengths: np.ndarray, *, steps: int, bend: float
) -> np.ndarray:
    """Paths that drift from their first heading.

    Args:
        starts: ``(n, 2)`` as ``x, y`` in pixels.
        headings: ``(n,)`` in radians; 0 points to +x, pi/2 to +y.
        lengths: ``(n,)`` in pixels along the path.
        steps: segments per path.
        bend: standard deviation of the heading's change from start to end, in radians.

    Returns:
        Points ``(n, steps + 1, 2)`` as ``x, y``; the first is the start.
    """
    n = len(starts)
    # A constant curvature plus a random walk: neither circles nor noise.
    turning = rng.normal(0, 0.7 * bend / steps, (n, 1)) + rng.normal(0, 0.7 * bend / np.sqrt(steps), (n, steps))
    direction = np.asarray(headings)[:, None] + np.cumsum(turning, axis=1)
    step = (np.asarray(lengths) / steps)[:, None, None] * np.stack([np.cos(direction), np.sin(direction)], axis=2)
    path = np.concatenate([np.zeros((n, 1, 2)), np.cumsum(step, axis=1)], axis=1)
    return path + np.asarray(starts)[:, None]
