"""Convert between Detectron2's ``Instances`` and :class:`Detections`."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from torch import nn

from cellseg_d2.detections.detections import Detections
from cellseg_d2.masks.crop import MaskCrop


class UnpastedMasks(nn.Module):
    """A Detectron2 R-CNN whose predictions are scaled to the original image, with masks left on their boxes' grids.

    Detectron2 pastes every mask into a full-size image, which for 800 cells takes hundreds of megabytes; and the
    probabilities are lost. Here ``pred_masks`` is :class:`MaskGrids`; :func:`to_detections` reads both forms.

    Args:
        model: a model with ``GeneralizedRCNN``'s ``inference(batched_inputs, do_postprocess=False)``; a
            ``DistributedDataParallel`` around it is taken off.
        dtype: used by PyTorch's autocast; None switches it off.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None = None):
        super().__init__()
        self.model = getattr(model, "module", model)
        self.dtype = dtype

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Arguments and result are those of Detectron2's models in evaluation; ``height`` and ``width`` of an input are
        respected.
        """
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = self.model.inference(batched_inputs, do_postprocess=False)
        return [
            {"instances": _rescaled(instances, inputs.get("height"), inputs.get("width"))}
            for inputs, instances in zip(batched_inputs, outputs, strict=True)
        ]


class MaskGrids:
    """Masks as probabilities on the grids of their boxes, which pass for Detectron2's pasted ones where they are read.

    One mask at a time is pasted into its image, when it is asked for: ``for mask in instances.pred_masks`` gives bool
    ``(H, W)``, as with the stock model.

    Attributes:
        probabilities: float ``(N, 1, M, M)``.
        boxes: float ``(N, 4)``, in pixels of the image.
        image_size: ``(height, width)``.
    """

    def __init__(self, probabilities: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]):
        self.probabilities = probabilities
        self.boxes = boxes
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, index: int | slice | torch.Tensor) -> torch.Tensor | MaskGrids:
        """The pasted mask of a number, the grids of anything else."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(index)  # which ends iteration
            probabilities = self.probabilities[index].float()
            return paste_masks_in_image(probabilities, self.boxes[index][None], self.image_size)[0]
        return MaskGrids(self.probabilities[index], self.boxes[index], self.image_size)

    def to(self, *args, **kwargs) -> MaskGrids:
        """Like ``Tensor.to``."""
        return MaskGrids(self.probabilities.to(*args, **kwargs), self.boxes.to(*args, **kwargs), self.image_size)


def _rescaled(instances: Instances, height: int | None, width: int | None) -> Instances:
    seen_height, seen_width = instances.image_size
    height, width = height or seen_height, width or seen_width
    fields = instances.get_fields()
    boxes = fields["pred_boxes"].clone()
    boxes.scale(width / seen_width, height / seen_height)
    boxes.clip((height, width))
    # NumPy, which evaluators use, has no bfloat16, which is what mixed precision may leave.
    fields = {**fields, "pred_boxes": Boxes(boxes.tensor.float()), "scores": fields["scores"].float()}
    if "pred_masks" in fields:
        fields["pred_masks"] = MaskGrids(fields["pred_masks"], boxes.tensor, (height, width))
    return Instances((height, width), **fields)[boxes.nonempty()]


def to_instances(detections: Detections) -> Instances:
    """The inverse of :func:`to_detections`, on the CPU."""
    shape, boxes = (detections.height, detections.width), torch.from_numpy(detections.boxes)
    if isinstance(detections.masks, np.ndarray):
        masks = MaskGrids(torch.from_numpy(detections.masks)[:, None], boxes, shape)
    else:
        full = [crop.to_full(*shape) for crop in detections.masks]
        masks = torch.from_numpy(np.array(full, dtype=bool).reshape(-1, *shape))
    return Instances(
        shape,
        pred_boxes=Boxes(boxes),
        scores=torch.from_numpy(detections.scores),
        pred_classes=torch.from_numpy(detections.classes),
        pred_masks=masks,
    )


def to_detections(instances: Instances) -> Detections:
    """``Instances`` in original image coordinates as arrays.

    Args:
        instances: with ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``, the latter either
            probabilities on the boxes' grids, :class:`MaskGrids` or float ``(N, 1, M, M)``, or stock Detectron2's
            pasted masks, bool ``(N, H, W)``.
    """
    height, width = instances.image_size
    masks = instances.pred_masks
    masks = masks.probabilities if isinstance(masks, MaskGrids) else masks
    masks = masks[:, 0].float().cpu().numpy() if masks.dim() == 4 else [*map(MaskCrop.from_full, masks.cpu().numpy())]
    return Detections(
        height,
        width,
        instances.pred_boxes.tensor.float().cpu().numpy(),
        instances.scores.float().cpu().numpy(),
        instances.pred_classes.long().cpu().numpy(),
        masks,
    )
