"""Random draws of the augmentations.

All of them come from ``np.random``'s global state, as those of Detectron2's own augmentations do: its data loader seeds
that state in every worker.
"""

from __future__ import annotations

import numpy as np


def uniform(low: float | np.ndarray, high: float | np.ndarray, size: int | tuple[int, ...] | None = None):
    """Evenly from ``[low, high)``; ``low`` where both are equal."""
    return np.random.uniform(low, high, size)  # noqa: NPY002


def log_uniform(low: float, high: float) -> float:
    """Factors ``> 0`` from ``[low, high]``, so that ×2 is as likely as ÷2."""
    return float(np.exp(uniform(np.log(low), np.log(high))))


def seed() -> int:
    """For the generator of a transform that must give the same noise each time it is applied."""
    return int(np.random.randint(2**31))  # noqa: NPY002
