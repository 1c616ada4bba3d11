"""Smooth random deformation that neither folds nor looks outside the image."""

from __future__ import annotations

from functools import cached_property

import cv2
import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import Augmentation
from scipy import ndimage

from cellseg_d2.data.augmentations.random_draws import log_uniform, seed, uniform
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.settings import interval, sometimes
from cellseg_d2.data.augmentations.warp import SamplingTransform

# Displacements of neighbouring pixels differ by at most so many pixels. Below 1, the deformation is one-to-one.
STEEPEST = 0.7
ITERATIONS = 60
PRECISION = 1e-3  # pixels


class ElasticTransform(SamplingTransform):
    """Output pixel ``p`` shows input place ``p + displacement(p)``.

    Attributes:
        displacement: float32 ``(2, H, W)``, x and y, in pixels. At the image's left and right border x is 0, at the
            upper and lower one y; along each axis it changes by less than a pixel per pixel. Hence no place is outside.
    """

    def __init__(self, displacement: np.ndarray):
        super().__init__(displacement.shape[1:], displacement.shape[1:])
        self.displacement = displacement

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.input_size
        columns = self.displacement[0] + np.arange(width, dtype=np.float32)
        rows = self.displacement[1] + np.arange(height, dtype=np.float32)[:, None]
        return columns, rows

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Input ``(x, y)``, ``(N, 2)``, to output.

        The inverse has no closed form; since the displacement is a contraction, ``p ← q − displacement(p)`` converges
        to the one output place ``p`` that shows ``q``. Outside the image the displacement is that of the border.
        """
        goal = np.asarray(coords, dtype=np.float64)
        place = goal.copy()
        for _ in range(ITERATIONS):
            before = place
            place = goal - self._displacement_at(place)
            if np.abs(place - before).max(initial=0) < PRECISION:
                break
        return place

    def _displacement_at(self, coords: np.ndarray) -> np.ndarray:
        index = coords.T[::-1] - 0.5
        return np.stack([ndimage.map_coordinates(d, index, order=1, mode="nearest") for d in self.displacement], axis=1)


class Elastic(Augmentation):
    """Elastic deformation (Simard et al. 2003) by a smoothed random field."""

    def __init__(self, strength: tuple[float, float] = (2.0, 8.0), smoothness: tuple[float, float] = (20.0, 60.0)):
        """
        Args:
            strength: range of the largest displacement in pixels. It is reduced where the deformation would fold,
                about when it exceeds a third of the smoothness.
            smoothness: range of the sigma in pixels of the Gaussian that smooths the field; the field also fades out
                over this length towards the border.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> ElasticTransform:
        rng = np.random.default_rng(seed())
        field = random_displacement(image.shape[:2], uniform(*self.strength), log_uniform(*self.smoothness), rng)
        return ElasticTransform(field)


def random_displacement(
    size: tuple[int, int], strength: float, smoothness: float, rng: np.random.Generator
) -> np.ndarray:
    """A field for :class:`ElasticTransform`, float32 ``(2, H, W)``; for the arguments see :class:`Elastic`."""
    height, width = size
    # The field has no detail finer than its smoothness, so it is made on a coarse grid.
    step = max(smoothness / 4, 1.0)
    coarse = int(np.ceil(height / step)) + 1, int(np.ceil(width / step)) + 1
    field = np.empty((2, height, width), dtype=np.float32)
    fades = _fade(width, smoothness)[None, :], _fade(height, smoothness)[:, None]
    for component, fade in zip(field, fades, strict=True):
        noise = cv2.GaussianBlur(rng.standard_normal(coarse, dtype=np.float32), (0, 0), smoothness / step)
        cv2.resize(noise, (width, height), dst=component, interpolation=cv2.INTER_CUBIC)
        component *= fade
    largest = np.sqrt(np.square(field).sum(axis=0).max())
    if largest == 0:
        return field
    field *= strength / largest
    steepest = max(sum(np.abs(np.diff(component, axis=axis)).max(initial=0) for axis in (0, 1)) for component in field)
    if steepest > STEEPEST:
        field *= STEEPEST / steepest
    return field


def _fade(size: int, smoothness: float) -> np.ndarray:
    """0 at the first and the last pixel, 1 far from them, float32 ``(size,)``."""
    index = np.arange(size)
    distance = np.minimum(index, size - 1 - index)
    return (1 - np.exp(-0.5 * (distance / smoothness) ** 2)).astype(np.float32)


@AUGMENTATION_REGISTRY.register(
    "elastic",
    defaults={"PROBABILITY": 0.5, "STRENGTH": [2.0, 8.0], "SMOOTHNESS": [20.0, 60.0]},
)
def elastic(cfg: CfgNode) -> list[T.Augmentation]:
    """a smooth deformation

    ``STRENGTH``: the largest displacement, ``SMOOTHNESS``: the sigma of the field's smoothing, both in pixels.
    """
    strength = interval(cfg, "ELASTIC.STRENGTH", low=0)
    smoothness = interval(cfg, "ELASTIC.SMOOTHNESS", positive=True)
    return sometimes(cfg, "ELASTIC", Elastic(strength, smoothness))
