"""Augmentations by name, in the order that ``INPUT.AUGMENTATIONS`` gives."""

from __future__ import annotations

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from fvcore.common.registry import Registry

from cellseg_d2.data.augmentations.crops import CellCrop, RotateZoomCrop, Rotation, ScaleJitter
from cellseg_d2.data.augmentations.elastic import Elastic
from cellseg_d2.data.augmentations.photometric import BrightnessContrast, Focus, Illumination, Invert, Noise
from cellseg_d2.data.augmentations.quarter_turn import QuarterTurn
from cellseg_d2.data.augmentations.resize import ResizeShortestEdge, Zoom
from cellseg_d2.data.augmentations.settings import interval, number, outside, size, sometimes
from cellseg_d2.errors import CellSegError

AUGMENTATION_REGISTRY = Registry("CELL_AUGMENTATION")
AUGMENTATION_REGISTRY.__doc__ = """
What ``INPUT.AUGMENTATIONS`` can name. Each entry is called as ``f(cfg)`` and returns a list of augmentations.
"""


def build_train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The augmentations of ``INPUT.AUGMENTATIONS``, each set up from its own part of ``INPUT``."""
    result = []
    for name in cfg.INPUT.AUGMENTATIONS:
        if name not in AUGMENTATION_REGISTRY:
            known = ", ".join(sorted(key for key, _ in AUGMENTATION_REGISTRY))
            raise CellSegError(f"INPUT.AUGMENTATIONS names {name!r}, which is none of: {known}")
        result.extend(AUGMENTATION_REGISTRY.get(name)(cfg))
    return result


def build_test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """What every image goes through in prediction: only the change of size."""
    if zoom := number(cfg, "ZOOM_TEST", low=0):
        return [Zoom(zoom)]
    size = cfg.INPUT.MIN_SIZE_TEST
    return [ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)]


@AUGMENTATION_REGISTRY.register()
def resize(cfg: CfgNode) -> list[T.Augmentation]:
    """Short side to ``MIN_SIZE_TRAIN``, long side at most ``MAX_SIZE_TRAIN``."""
    node = cfg.INPUT
    return [ResizeShortestEdge(node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING)]


@AUGMENTATION_REGISTRY.register()
def crop(cfg: CfgNode) -> list[T.Augmentation]:
    """A random crop as ``INPUT.CROP`` says."""
    return [T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)] if cfg.INPUT.CROP.ENABLED else []


@AUGMENTATION_REGISTRY.register()
def flip(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.RANDOM_FLIP`` with chance ½: horizontal, vertical, both (each with chance ½), or none."""
    which = cfg.INPUT.RANDOM_FLIP
    if which not in ("none", "horizontal", "vertical", "both"):
        raise CellSegError(f"INPUT.RANDOM_FLIP is {which!r}; it can be none, horizontal, vertical or both")
    flips = [T.RandomFlip(horizontal=True, vertical=False)] if which in ("horizontal", "both") else []
    return flips + (vertical_flip(cfg) if which in ("vertical", "both") else [])


@AUGMENTATION_REGISTRY.register()
def vertical_flip(cfg: CfgNode) -> list[T.Augmentation]:
    """Upside down with chance ½: cells have no up and down."""
    return [T.RandomFlip(horizontal=False, vertical=True)]


@AUGMENTATION_REGISTRY.register()
def quarter_turn(cfg: CfgNode) -> list[T.Augmentation]:
    """By 0, 90, 180 or 270°, without loss."""
    return [QuarterTurn()]


@AUGMENTATION_REGISTRY.register()
def rotation(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.ROTATION``: by any angle, the size of the image kept, without empty corners."""
    angle = interval(cfg, "ROTATION.ANGLE")
    max_zoom = number(cfg, "ROTATION.MAX_ZOOM", low=1)
    return [Rotation(angle, max_zoom, outside(cfg, "ROTATION.OUTSIDE"))] if any(angle) else []


@AUGMENTATION_REGISTRY.register()
def rotate_zoom_crop(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.ROTATE_ZOOM_CROP``: rotation, zoom and crop in one warp that stays inside the image."""
    return [
        RotateZoomCrop(
            interval(cfg, "ROTATE_ZOOM_CROP.ANGLE"),
            interval(cfg, "ROTATE_ZOOM_CROP.ZOOM", positive=True),
            size(cfg, "ROTATE_ZOOM_CROP.SIZE"),
            aspect=interval(cfg, "ROTATE_ZOOM_CROP.ASPECT", positive=True),
            shear=interval(cfg, "ROTATE_ZOOM_CROP.SHEAR", -60, 60),
            cell_probability=number(cfg, "ROTATE_ZOOM_CROP.CELL_PROBABILITY", 0, 1),
            outside=outside(cfg, "ROTATE_ZOOM_CROP.OUTSIDE"),
        )
    ]


@AUGMENTATION_REGISTRY.register()
def scale_jitter(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.SCALE_JITTER``: a random factor of size, then a crop; nothing is padded."""
    return [
        ScaleJitter(
            interval(cfg, "SCALE_JITTER.SCALE", positive=True),
            size(cfg, "SCALE_JITTER.SIZE"),
            cell_probability=number(cfg, "SCALE_JITTER.CELL_PROBABILITY", 0, 1),
        )
    ]


@AUGMENTATION_REGISTRY.register()
def cell_crop(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.CELL_CROP``: a crop that is chosen to contain cells."""
    return [CellCrop(size(cfg, "CELL_CROP.SIZE"), number(cfg, "CELL_CROP.CELL_PROBABILITY", 0, 1))]


@AUGMENTATION_REGISTRY.register()
def elastic(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.ELASTIC``: a smooth deformation."""
    strength = interval(cfg, "ELASTIC.STRENGTH", low=0)
    smoothness = interval(cfg, "ELASTIC.SMOOTHNESS", positive=True)
    return sometimes(cfg, "ELASTIC", Elastic(strength, smoothness))


@AUGMENTATION_REGISTRY.register()
def brightness_contrast(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.BRIGHTNESS_CONTRAST``: brightness, contrast and gamma."""
    brightness = interval(cfg, "BRIGHTNESS_CONTRAST.BRIGHTNESS", -255, 255)
    contrast = interval(cfg, "BRIGHTNESS_CONTRAST.CONTRAST", positive=True)
    gamma = interval(cfg, "BRIGHTNESS_CONTRAST.GAMMA", positive=True)
    return sometimes(cfg, "BRIGHTNESS_CONTRAST", BrightnessContrast(brightness, contrast, gamma))


@AUGMENTATION_REGISTRY.register()
def focus(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.FOCUS``: blurred or sharpened."""
    return sometimes(cfg, "FOCUS", Focus(interval(cfg, "FOCUS.BLUR", low=0), interval(cfg, "FOCUS.SHARPEN", low=0)))


@AUGMENTATION_REGISTRY.register()
def noise(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.NOISE``: read noise and shot noise."""
    return sometimes(cfg, "NOISE", Noise(interval(cfg, "NOISE.READ", low=0), interval(cfg, "NOISE.SHOT", low=0)))


@AUGMENTATION_REGISTRY.register()
def illumination(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.ILLUMINATION``: a gradient or vignette of the light."""
    gain, offset = interval(cfg, "ILLUMINATION.GAIN", 0, 1), interval(cfg, "ILLUMINATION.OFFSET", 0, 255)
    return sometimes(cfg, "ILLUMINATION", Illumination(gain, offset))


@AUGMENTATION_REGISTRY.register()
def invert(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.INVERT``: bright becomes dark."""
    return sometimes(cfg, "INVERT", Invert())
