"""Lossless turns by multiples of 90°."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import NoOpTransform, Transform

from cellseg_d2.data.augmentations.random_draws import uniform
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY


class QuarterTurnTransform(Transform):
    """Counter-clockwise by ``turns`` × 90°; odd turns exchange height and width."""

    def __init__(self, turns: int, height: int, width: int):
        """
        Args:
            turns: any integer.
            height, width: size of the input in pixels.
        """
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """``(H, W)`` or ``(H, W, C)`` of any dtype; the result is a view."""
        return np.rot90(img, self.turns)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return np.rot90(segmentation, self.turns)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        x, y = np.asarray(coords)[:, 0], np.asarray(coords)[:, 1]
        width, height = self.width, self.height
        turned = ((x, y), (y, width - x), (width - x, height - y), (height - y, x))[self.turns % 4]
        return np.stack(turned, axis=1)

    def inverse(self) -> QuarterTurnTransform:
        size = (self.width, self.height) if self.turns % 2 else (self.height, self.width)
        return QuarterTurnTransform(-self.turns, *size)


class QuarterTurn(Augmentation):
    """By 0, 90, 180 or 270°, each as likely."""

    def get_transform(self, image: np.ndarray) -> Transform:
        turns = int(uniform(0, 4))
        return QuarterTurnTransform(turns, *image.shape[:2]) if turns else NoOpTransform()


@AUGMENTATION_REGISTRY.register("quarter_turn")
def quarter_turn(cfg: CfgNode) -> list[T.Augmentation]:
    """by 0, 90, 180 or 270°, without loss"""
    return [QuarterTurn()]
