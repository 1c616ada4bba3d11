"""Detectron2's own augmentations."""

from __future__ import annotations

import detectron2.data.transforms as T
from detectron2.config import CfgNode

from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.errors import CellSegError


@AUGMENTATION_REGISTRY.register("crop")
def crop(cfg: CfgNode) -> list[T.Augmentation]:
    """a random crop as Detectron2's ``INPUT.CROP`` says"""
    return [T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE)] if cfg.INPUT.CROP.ENABLED else []


@AUGMENTATION_REGISTRY.register("flip")
def flip(cfg: CfgNode) -> list[T.Augmentation]:
    """``INPUT.RANDOM_FLIP`` with chance ½: horizontal, vertical, both (each by itself), or none"""
    which = cfg.INPUT.RANDOM_FLIP
    if which not in ("none", "horizontal", "vertical", "both"):
        raise CellSegError(f"INPUT.RANDOM_FLIP is {which!r}; it can be none, horizontal, vertical or both")
    flips = [T.RandomFlip(horizontal=True, vertical=False)] if which in ("horizontal", "both") else []
    return flips + (vertical_flip(cfg) if which in ("vertical", "both") else [])


@AUGMENTATION_REGISTRY.register("vertical_flip")
def vertical_flip(cfg: CfgNode) -> list[T.Augmentation]:
    """upside down with chance ½: cells have no up and down"""
    return [T.RandomFlip(horizontal=False, vertical=True)]
