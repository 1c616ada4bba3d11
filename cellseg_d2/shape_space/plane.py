"""Project a space of shapes to two dimensions, for pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in a space.

    Attributes:
        origin: float ``(D,)``.
        axes: float ``(2, D)``, orthonormal.
    """

    origin: np.ndarray
    axes: np.ndarray

    @classmethod
    def through(cls, latents: np.ndarray) -> Plane:
        """The whole space where that has two dimensions; else the plane in which ``latents`` ``(N, D)`` vary most."""
        if latents.shape[1] == 2:
            return cls(np.zeros(2), np.eye(2))
        origin = latents.mean(axis=0)
        axes = np.linalg.svd(latents - origin, full_matrices=True)[2][:2]
        # The sign of an axis is arbitrary, and the same data shall give the same map.
        axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
        return cls(origin, axes)

    def project(self, latents: np.ndarray) -> np.ndarray:
        """Project latents ``(N, D)`` to x and y, ``(N, 2)``."""
        return (latents - self.origin) @ self.axes.T

    def lift(self, points: np.ndarray) -> np.ndarray:
        """Points ``(N, 2)`` of the plane as latents ``(N, D)``."""
        return self.origin + points @ self.axes
