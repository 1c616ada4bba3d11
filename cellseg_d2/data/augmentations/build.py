"""Augmentations by name, in the order that ``INPUT.AUGMENTATIONS`` gives."""

from __future__ import annotations

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from fvcore.common.registry import Registry

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
    size = cfg.INPUT.MIN_SIZE_TEST
    return [T.ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)]


@AUGMENTATION_REGISTRY.register()
def resize(cfg: CfgNode) -> list[T.Augmentation]:
    """Short side to ``MIN_SIZE_TRAIN``, long side at most ``MAX_SIZE_TRAIN``."""
    node = cfg.INPUT
    return [T.ResizeShortestEdge(node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING)]


@AUGMENTATION_REGISTRY.register()
def crop(cfg: CfgNode) -> list[T.Augmentation]:
    """A random crop as ``INPUT.CROP`` says."""
    return [T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)] if cfg.INPUT.CROP.ENABLED else []


@AUGMENTATION_REGISTRY.register()
def flip(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.RANDOM_FLIP``: horizontal, vertical, both (each with chance ½), or none."""
    which = cfg.INPUT.RANDOM_FLIP
    if which not in ("none", "horizontal", "vertical", "both"):
        raise CellSegError(f"INPUT.RANDOM_FLIP is {which!r}; it can be none, horizontal, vertical or both")
    flips = []
    if which in ("horizontal", "both"):
        flips.append(T.RandomFlip(horizontal=True, vertical=False))
    if which in ("vertical", "both"):
        flips.append(T.RandomFlip(horizontal=False, vertical=True))
    return flips


@AUGMENTATION_REGISTRY.register()
def rotation(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.ROTATION``: by an angle drawn evenly from a range, the size of the image kept."""
    low, high = cfg.INPUT.ROTATION.ANGLE
    return [T.RandomRotation([low, high], expand=False)] if (low, high) != (0, 0) else []
