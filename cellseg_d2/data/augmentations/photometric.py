"""Changes of the grey levels only: exposure, focus, noise, illumination. Masks stay as they are.

Images are uint8 ``(H, W)``; levels are in units of their 0 … 255.
"""

from __future__ import annotations

import cv2
import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import NoOpTransform, Transform

from cellseg_d2.data.augmentations.random_draws import log_uniform, seed, uniform
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.settings import interval, sometimes

Range = tuple[float, float]


class PhotometricTransform(Transform):
    """Base class: places stay, and with them masks, boxes and points."""

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def inverse(self) -> Transform:
        return NoOpTransform()


class LookupTransform(PhotometricTransform):
    """Each grey level replaced by another one; ``table`` is uint8 ``(256,)``."""

    def __init__(self, table: np.ndarray):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.LUT(np.ascontiguousarray(img), self.table)


class Invert(Augmentation):
    """Bright becomes dark, as under other optics."""

    def get_transform(self, image: np.ndarray) -> LookupTransform:
        return LookupTransform(np.arange(255, -1, -1, dtype=np.uint8))


class BrightnessContrast(Augmentation):
    """Gamma, contrast around the image's own mean, and brightness, through one look-up table."""

    def __init__(self, brightness: Range = (-12.0, 12.0), contrast: Range = (0.75, 1.33), gamma: Range = (0.75, 1.33)):
        """
        Args:
            brightness: range of the grey levels that are added.
            contrast: range of the factor on the distance from the mean; drawn evenly on a logarithmic scale.
            gamma: range of the exponent on levels in 0 … 1; likewise. The mean is kept.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> LookupTransform:
        levels = 255 * (np.arange(256) / 255) ** log_uniform(*self.gamma)
        counts = np.bincount(image.ravel(), minlength=256)
        before, after = np.average(np.arange(256), weights=counts), np.average(levels, weights=counts)
        levels = before + (levels - after) * log_uniform(*self.contrast) + uniform(*self.brightness)
        return LookupTransform(_to_uint8(levels))


class BlurTransform(PhotometricTransform):
    """Gaussian blur by ``sigma`` pixels, times ``amount``: 1 blurs, a negative one sharpens (unsharp masking)."""

    def __init__(self, sigma: float, amount: float = 1.0):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        blurred = cv2.GaussianBlur(img, (0, 0), self.sigma)
        return blurred if self.amount == 1 else cv2.addWeighted(img, 1 - self.amount, blurred, self.amount, 0)


class Focus(Augmentation):
    """Worse focus or better, each as likely: Gaussian blur or unsharp masking."""

    def __init__(self, blur: Range = (0.4, 1.6), sharpen: Range = (0.2, 1.0)):
        """
        Args:
            blur: range of the blur's sigma in pixels; ``(0, 0)`` only sharpens.
            sharpen: range of how much of the detail below 1 … 2 pixels is added; ``(0, 0)`` only blurs.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        can_blur, can_sharpen = max(self.blur) > 0, max(self.sharpen) > 0
        if not (can_blur or can_sharpen):
            return NoOpTransform()
        if can_blur and (not can_sharpen or uniform(0, 1) < 0.5):
            return BlurTransform(max(uniform(*self.blur), 0.1))
        return BlurTransform(uniform(1, 2), -uniform(*self.sharpen))


class NoiseTransform(PhotometricTransform):
    """Noise of a camera: read noise everywhere, shot noise the more the brighter.

    The variance is ``read² + shot² · level / 128``.
    """

    def __init__(self, read: float, shot: float, seed: int):
        """
        Args:
            read: standard deviation of the read noise in grey levels.
            shot: that of the shot noise at level 128.
            seed: the same seed gives the same noise.
        """
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(self.seed).standard_normal(img.shape, dtype=np.float32)
        spread = np.sqrt(self.read**2 + self.shot**2 * np.arange(256) / 128).astype(np.float32)
        noise *= spread[img]
        noise += img
        return _to_uint8(noise)


class Noise(Augmentation):
    """Camera noise of random strength."""

    def __init__(self, read: Range = (0.0, 3.0), shot: Range = (0.0, 3.0)):
        """Ranges of the standard deviations, see :class:`NoiseTransform`."""
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> NoiseTransform:
        return NoiseTransform(float(uniform(*self.read)), float(uniform(*self.shot)), seed())


class IlluminationTransform(PhotometricTransform):
    """Uneven light: ``level · (1 + gain · s) + offset · s`` with a smooth surface ``s`` between -1 and 1.

    Attributes:
        coefficients: coefficients of x, y, x², x·y and y², float64 ``(5,)``; x and y run from -1 to 1 over the image.
        gain: as a fraction.
        offset: in grey levels.
    """

    def __init__(self, coefficients: np.ndarray, gain: float, offset: float):
        super().__init__()
        self._set_attributes(locals())

    def surface(self, height: int, width: int) -> np.ndarray:
        """``s``, float32 ``(height, width)``; its mean is 0 and its largest size 1."""
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        a, b, c, d, e = np.asarray(self.coefficients, dtype=np.float32)
        surface = (a * x + c * x**2) + (b * y + e * y**2) + (d * y) * x
        surface -= surface.mean()
        largest = max(surface.max(), -surface.min())
        return surface / largest if largest > 0 else surface

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        surface = self.surface(*img.shape[:2])
        return _to_uint8(img + surface * (np.float32(self.gain) * img + np.float32(self.offset)))


class Illumination(Augmentation):
    """A random gradient or vignette of the light."""

    def __init__(self, gain: Range = (0.0, 0.08), offset: Range = (0.0, 8.0)):
        """
        Args:
            gain: range of the largest relative change.
            offset: range of the largest change in grey levels.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> IlluminationTransform:
        return IlluminationTransform(uniform(-1, 1, 5), float(uniform(*self.gain)), float(uniform(*self.offset)))


def _to_uint8(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


@AUGMENTATION_REGISTRY.register(
    "brightness_contrast",
    defaults={"PROBABILITY": 0.5, "BRIGHTNESS": [-12.0, 12.0], "CONTRAST": [0.75, 1.33], "GAMMA": [0.75, 1.33]},
)
def brightness_contrast(cfg: CfgNode) -> list[T.Augmentation]:
    """grey levels added, factor of the contrast around the mean, exponent"""
    brightness = interval(cfg, "BRIGHTNESS_CONTRAST.BRIGHTNESS", -255, 255)
    contrast = interval(cfg, "BRIGHTNESS_CONTRAST.CONTRAST", positive=True)
    gamma = interval(cfg, "BRIGHTNESS_CONTRAST.GAMMA", positive=True)
    return sometimes(cfg, "BRIGHTNESS_CONTRAST", BrightnessContrast(brightness, contrast, gamma))


@AUGMENTATION_REGISTRY.register("focus", defaults={"PROBABILITY": 0.3, "BLUR": [0.4, 1.6], "SHARPEN": [0.2, 1.0]})
def focus(cfg: CfgNode) -> list[T.Augmentation]:
    """Gaussian blur or sharpening, each as likely

    ``BLUR``: sigma in pixels, ``SHARPEN``: factor; ``[0, 0]`` leaves one away.
    """
    return sometimes(cfg, "FOCUS", Focus(interval(cfg, "FOCUS.BLUR", low=0), interval(cfg, "FOCUS.SHARPEN", low=0)))


@AUGMENTATION_REGISTRY.register("noise", defaults={"PROBABILITY": 0.3, "READ": [0.0, 3.0], "SHOT": [0.0, 3.0]})
def noise(cfg: CfgNode) -> list[T.Augmentation]:
    """read noise and shot noise

    Standard deviations in grey levels, of shot noise at level 128.
    """
    return sometimes(cfg, "NOISE", Noise(interval(cfg, "NOISE.READ", low=0), interval(cfg, "NOISE.SHOT", low=0)))


@AUGMENTATION_REGISTRY.register(
    "illumination",
    defaults={"PROBABILITY": 0.3, "GAIN": [0.0, 0.08], "OFFSET": [0.0, 8.0]},
)
def illumination(cfg: CfgNode) -> list[T.Augmentation]:
    """a smooth gradient or vignette of the light

    ``GAIN``: its largest relative change, ``OFFSET``: its largest change in grey levels.
    """
    gain, offset = interval(cfg, "ILLUMINATION.GAIN", 0, 1), interval(cfg, "ILLUMINATION.OFFSET", 0, 255)
    return sometimes(cfg, "ILLUMINATION", Illumination(gain, offset))


@AUGMENTATION_REGISTRY.register("invert", defaults={"PROBABILITY": 0.5})
def invert(cfg: CfgNode) -> list[T.Augmentation]:
    """bright becomes dark"""
    return sometimes(cfg, "INVERT", Invert())
