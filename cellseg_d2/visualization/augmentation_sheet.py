"""Draw one training image beside samples that the training's own mapper makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.env import seed_all_rng

from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.data.label_masks import LabelMasks
from cellseg_d2.data.stream import derived_seed
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.comparison import contact_sheet
from cellseg_d2.visualization.overlays import draw_outlines, text_strip

PANEL_SIDE = 560  # pixels that the longer side of a panel has at least
TEXT_SIZE = 17


def augmentation_sheet(
    mapper: CellDatasetMapper, entry: dict, title: str, *, count: int = 6, columns: int = 3, seed: int = 0
) -> np.ndarray:
    """The image as it is, without and with outlines, and beside it ``count`` samples with outlines of their targets.

    All panels show grey levels alike, so that changes of brightness and contrast are seen; the range is the original's.

    Args:
        mapper: in training mode, as the trainer uses it.
        entry: dataset dict of the image.
        title: for the strip on top.
        count: number of samples.
        columns: samples in a row.
        seed: seed of the random numbers; sample ``i`` is the same for any ``count``.

    Returns:
        ``(h, w, 3)`` uint8 RGB.
    """
    original = mapper.load(entry)
    levels = np.percentile(original.image, [0.3, 99.7])
    crops = original.masks.crops()
    originals = [_panel(original.image, [], levels, "original"), _panel(original.image, crops, levels, "original")]
    samples = []
    for index in range(count):
        # Neighbouring seeds can draw nearly the same first numbers, such as angles.
        seed_all_rng(derived_seed(seed, index))
        sample = mapper(entry)
        samples.append(_panel(sample["image"][0].numpy(), target_crops(sample["instances"]), levels, f"{index + 1}"))
    sheet = contact_sheet([contact_sheet(originals), contact_sheet(samples, columns)], columns=2)
    return np.concatenate([text_strip(sheet.shape[1], title, text_size=round(1.3 * TEXT_SIZE)), sheet])


def target_crops(instances: Instances) -> list[MaskCrop]:
    """The masks of training targets, ``LabelMasks`` or ``BitMasks``, as crops."""
    masks = instances.gt_masks
    if not isinstance(masks, LabelMasks):
        return [MaskCrop.from_full(mask.numpy()) for mask in masks]
    return masks.to_label_layers().crops()


def describe_augmentations(cfg: CfgNode) -> str:
    """What training does to an image, in order: copy-paste, then ``INPUT.AUGMENTATIONS``."""
    paste = cfg.INPUT.COPY_PASTE
    first = [f"copy-paste ({paste.PROBABILITY:g})"] if paste.PROBABILITY > 0 else []
    return " → ".join([*first, *cfg.INPUT.AUGMENTATIONS]) or "no augmentation"


def _panel(image: np.ndarray, crops: Sequence[MaskCrop], levels: np.ndarray, name: str) -> np.ndarray:
    height, width = image.shape
    upscale = max(1, round(PANEL_SIDE / max(height, width)))
    low, high = levels[0], max(levels[1], levels[0] + 1)
    grey = np.clip((image.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    shown = cv2.resize(grey, None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC)
    shown = np.repeat(shown[:, :, None], 3, axis=2)
    if crops:
        # Drawn on an even ground and laid over: on the image itself, its contrast would be stretched once more.
        ground = draw_outlines(np.zeros_like(grey), [], upscale=upscale)
        drawn = draw_outlines(np.zeros_like(grey), crops, upscale=upscale, thickness=upscale)
        shown = np.where((drawn != ground).any(axis=2, keepdims=True), drawn, shown)
    legend = [(f"{len(crops)} cell{'' if len(crops) == 1 else 's'}", None)] if crops or name != "original" else []
    legend.append((f"{width} × {height}", None))
    return np.concatenate([text_strip(shown.shape[1], name, legend, TEXT_SIZE), shown])
