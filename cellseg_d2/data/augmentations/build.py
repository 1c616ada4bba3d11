"""Build the augmentations that a configuration names, in their order."""

from __future__ import annotations

import detectron2.data.transforms as T
from detectron2.config import CfgNode

from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.resize import ResizeShortestEdge, Zoom
from cellseg_d2.data.augmentations.settings import number


def build_train_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The augmentations of ``INPUT.AUGMENTATIONS``, each set up from its own part of ``INPUT``."""
    entries = [AUGMENTATION_REGISTRY.choose(name, "INPUT.AUGMENTATIONS") for name in cfg.INPUT.AUGMENTATIONS]
    return [augmentation for entry in entries for augmentation in entry(cfg)]


def build_test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The augmentations in prediction: only the change of size."""
    if zoom := number(cfg, "ZOOM_TEST", low=0):
        return [Zoom(zoom)]
    size = cfg.INPUT.MIN_SIZE_TEST
    return [ResizeShortestEdge([size, size], cfg.INPUT.MAX_SIZE_TEST)]
