"""Detectron2's change of size, for labels of any integer type."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import Transform

from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY


class ResizeTransform(T.ResizeTransform):
    """Detectron2's transform for images; labels are taken from the nearest pixel, whatever their type.

    Detectron2 resizes only 8-bit labels so, and changes the coordinates that it is given.
    """

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        rows = ((np.arange(self.new_h) + 0.5) * (self.h / self.new_h)).astype(np.intp)
        columns = ((np.arange(self.new_w) + 0.5) * (self.w / self.new_w)).astype(np.intp)
        return segmentation.take(rows, axis=0).take(columns, axis=1)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords * np.array([self.new_w / self.w, self.new_h / self.h], dtype=coords.dtype)

    def inverse(self) -> ResizeTransform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's augmentation with :class:`ResizeTransform`."""

    def get_transform(self, image: np.ndarray) -> Transform:
        stock = super().get_transform(image)
        if not isinstance(stock, T.ResizeTransform):
            return stock
        return ResizeTransform(stock.h, stock.w, stock.new_h, stock.new_w, stock.interp)


class Zoom(Augmentation):
    """Resize by a factor, whatever the image's size: what is alike under one microscope stays alike."""

    def __init__(self, factor: float):
        """
        Args:
            factor: output pixels per input pixel.
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        return ResizeTransform(height, width, *(max(1, round(side * self.factor)) for side in (height, width)))


@AUGMENTATION_REGISTRY.register("resize")
def resize(cfg: CfgNode) -> list[T.Augmentation]:
    """short side to ``MIN_SIZE_TRAIN``, long side at most ``MAX_SIZE_TRAIN``"""
    node = cfg.INPUT
    return [ResizeShortestEdge(node.MIN_SIZE_TRAIN, node.MAX_SIZE_TRAIN, node.MIN_SIZE_TRAIN_SAMPLING)]
