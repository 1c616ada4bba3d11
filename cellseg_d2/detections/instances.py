"""The bridge from Detectron2's ``Instances`` to :class:`Detections`."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from cellseg_d2.detections.detections import Detections
from cellseg_d2.masks.crop import MaskCrop


class UnpastedMasks(nn.Module):
    """A Detectron2 R-CNN whose predictions are scaled to the original image, with masks left on their boxes' grids.

    Detectron2 pastes every mask into a full-size image, which for 800 cells takes hundreds of megabytes; and the
    probabilities are lost. Here ``pred_masks`` stays float ``(N, 1, M, M)``; :func:`to_detections` reads both forms.

    Args:
        model: a model with ``GeneralizedRCNN``'s ``inference(batched_inputs, do_postprocess=False)``; a
            ``DistributedDataParallel`` around it is taken off.
        dtype: of PyTorch's autocast, None for none.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None):
        super().__init__()
        self.model = getattr(model, "module", model)
        self.dtype = dtype

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Args and result as of Detectron2's models in evaluation; ``height`` and ``width`` of an input are obeyed."""
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = self.model.inference(batched_inputs, do_postprocess=False)
        return [
            {"instances": _rescaled(instances, inputs.get("height"), inputs.get("width"))}
            for inputs, instances in zip(batched_inputs, outputs, strict=True)
        ]


def _rescaled(instances: Instances, height: int | None, width: int | None) -> Instances:
    seen_height, seen_width = instances.image_size
    height, width = height or seen_height, width or seen_width
    fields = instances.get_fields()
    boxes = fields["pred_boxes"].clone()
    boxes.scale(width / seen_width, height / seen_height)
    boxes.clip((height, width))
    result = Instances((height, width), **{**fields, "pred_boxes": boxes})
    return result[boxes.nonempty()]


def to_instances(detections: Detections) -> Instances:
    """The inverse of :func:`to_detections`, on the CPU."""
    shape = detections.height, detections.width
    masks = detections.masks
    if isinstance(masks, np.ndarray):
        masks = masks[:, None]
    else:
        masks = np.array([crop.to_full(*shape) for crop in masks], dtype=bool).reshape(-1, *shape)
    return Instances(
        shape,
        pred_boxes=Boxes(torch.from_numpy(detections.boxes)),
        scores=torch.from_numpy(detections.scores),
        pred_classes=torch.from_numpy(detections.classes),
        pred_masks=torch.from_numpy(masks),
    )


def to_detections(instances: Instances) -> Detections:
    """``Instances`` in original image coordinates as arrays.

    Args:
        instances: with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``, the latter either
            probabilities on the boxes' grids, float ``(N, 1, M, M)``, as of :class:`UnpastedMasks`, or stock
            Detectron2's pasted masks, bool ``(N, H, W)``.
    """
    height, width = instances.image_size
    masks = instances.pred_masks
    # NumPy has no bfloat16, which is what mixed precision may leave.
    masks = masks[:, 0].float().cpu().numpy() if masks.dim() == 4 else [*map(MaskCrop.from_full, masks.cpu().numpy())]
    return Detections(
        height,
        width,
        instances.pred_boxes.tensor.float().cpu().numpy(),
        instances.scores.float().cpu().numpy(),
        instances.pred_classes.long().cpu().numpy(),
        masks,
    )
