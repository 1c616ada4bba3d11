"""Training masks in Detectron2's own form."""

from __future__ import annotations

import torch
from detectron2.structures import BitMasks

from cellseg_d2.data.label_masks import LabelMasks


def to_bitmasks(masks: LabelMasks) -> BitMasks:
    """The same masks, one full-size one a cell."""
    none = torch.zeros((0, *masks.image_size), dtype=torch.bool)
    return BitMasks(torch.stack(list(masks)) if len(masks) else none)
