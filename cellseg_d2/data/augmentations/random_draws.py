"""Random numbers for the augmentations.

They come from ``np.random``'s global state, as in Detectron2's own augmentations: its data loader seeds that state in
every worker.
"""

from __future__ import annotations

import numpy as np


def uniform(low: float | np.ndarray, high: float | np.ndarray, size: int | tuple[int, ...] | None = None):
    """Draw evenly from ``[low, high)``; ``low`` where both are equal."""
    return np.random.uniform(low, high, size)  # noqa: NPY002


def log_uniform(low: float, high: float) -> float:
    """Draw a factor ``> 0`` from ``[low, high]``, so that ×2 is as likely as ÷2."""
    return float(np.exp(uniform(np.log(low), np.log(high))))


def seed() -> int:
    """Draw a seed for a transform that must give the same noise each time it is applied."""
    return int(np.random.randint(2**31))  # noqa: NPY002
