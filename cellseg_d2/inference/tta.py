"""Test-time augmentation: an image is looked at in several orientations and sizes, and what is seen is merged.

Flips and quarter turns move every pixel to a pixel, so boxes and masks are brought back exactly. Cells have no up and
down, which makes all eight orientations as likely as the one that the microscope happened to record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from detectron2.config import CfgNode
from fvcore.transforms.transform import HFlipTransform, TransformList

from cellseg_d2.config import check_scales
from cellseg_d2.data.augmentations.quarter_turn import QuarterTurnTransform
from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop

# (mirrored, quarter turns) by the name of the configuration.
FLIPS = {
    "none": [(False, 0)],
    "horizontal": [(False, 0), (True, 0)],
    "vertical": [(False, 0), (True, 2)],
    "both": [(False, 0), (True, 0), (True, 2), (False, 2)],
}


@dataclass(frozen=True)
class View:
    """One way to look at an image.

    Attributes:
        mirrored: left and right are exchanged, first.
        turns: counter-clockwise by this many × 90°, then.
        scale: the network's input is enlarged by this factor over its usual size.
    """

    mirrored: bool = False
    turns: int = 0
    scale: float = 1.0

    def transform(self, height: int, width: int) -> TransformList:
        """From an image of ``height`` × ``width`` pixels to what is seen in this orientation; see :meth:`restore`."""
        transforms = [HFlipTransform(width)] if self.mirrored else []
        return TransformList([*transforms, QuarterTurnTransform(self.turns, height, width)])

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The image ``(H, W)`` in this orientation, contiguous; odd turns exchange height and width."""
        return np.ascontiguousarray(self.transform(*image.shape[:2]).apply_image(image))

    def restore(self, detections: Detections) -> Detections:
        """Detections in this orientation, as they are in the image; exact, also for binary masks."""
        height, width = detections.height, detections.width
        if self.turns % 2:
            height, width = width, height
        back = self.transform(height, width).inverse()
        boxes = back.apply_box(detections.boxes).astype(np.float32)
        return replace(detections, height=height, width=width, boxes=boxes, masks=self._restore_masks(detections))

    def _restore_masks(self, detections: Detections) -> np.ndarray | list[MaskCrop]:
        masks = detections.masks
        if isinstance(masks, np.ndarray):  # the grids as channels of one image
            size = masks.shape[-1]
            turned = self.transform(size, size).inverse().apply_image(masks.transpose(1, 2, 0))
            return np.ascontiguousarray(turned.transpose(2, 0, 1))
        height, width = detections.height, detections.width
        if self.turns % 2:
            height, width = width, height
        corners = np.array([crop.box for crop in masks], dtype=np.float64).reshape(-1, 4)
        corners = self.transform(height, width).inverse().apply_box(corners).astype(int)
        restored = []
        for crop, (left, top, _, _) in zip(masks, corners.tolist(), strict=True):
            h, w = crop.mask.shape
            own = (w, h) if self.turns % 2 else (h, w)
            restored.append(MaskCrop(top, left, self.transform(*own).inverse().apply_image(crop.mask)))
        return restored


def make_views(flips: str = "both", quarter_turns: bool = True, scales: Iterable[float] = (1.0,)) -> list[View]:
    """Every orientation at every scale.

    Args:
        flips: a key of :data:`FLIPS`.
        quarter_turns: whether each is also turned by 90°, 180° and 270°. With any flip these are all 8 orientations.
        scales: of the network's input, relative to its usual size.

    Returns:
        Each view once, the image as it is first if 1 is among the scales.

    Raises:
        CellSegError: an unknown name, no scale, or a scale that is not in 0.1 … 10.

    Example:
        >>> len(make_views("horizontal", False)), len(make_views("both", True, [1.0, 1.2]))
        (2, 16)
    """
    scales = sorted(dict.fromkeys(float(scale) for scale in scales), key=lambda scale: abs(scale - 1))
    if flips not in FLIPS:
        raise CellSegError(f"TEST.TTA.FLIPS is {flips!r}; it can be {', '.join(FLIPS)}")
    check_scales("TEST.TTA.SCALES", scales)
    turns = range(4) if quarter_turns else (0,)
    orientations = {(mirrored, (start + turn) % 4): None for turn in turns for mirrored, start in FLIPS[flips]}
    return [View(mirrored, turn, scale) for scale in scales for mirrored, turn in orientations]


def views_from_config(cfg: CfgNode) -> list[View]:
    """The views of ``TEST.TTA``; only the image as it is where that is not enabled."""
    node = cfg.TEST.TTA
    return make_views(node.FLIPS, node.QUARTER_TURNS, node.SCALES) if node.ENABLED else [View()]


def detect_views(
    detect: Callable[[np.ndarray, float], Detections], image: np.ndarray, views: Sequence[View]
) -> list[Detections]:
    """What is detected in each view, in the coordinates of the image.

    Args:
        detect: called with a contiguous image and a scale; its detections are in the coordinates of the image given,
            whatever the scale at which it looks.
        image: ``(H, W)``.
        views: of :func:`make_views`.
    """
    return [view.restore(detect(view.apply(image), view.scale)) for view in views]
