"""An R-CNN that pads images with their reflection instead of Detectron2's flat grey."""

from __future__ import annotations

import torch
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import ImageList


@META_ARCH_REGISTRY.register()
class ReflectionPaddedRCNN(GeneralizedRCNN):
    """``GeneralizedRCNN`` for networks with GroupNorm that were trained on crops.

    Sides that are not a multiple of the backbone's coarsest stride are padded. A group norm takes its mean and variance
    over the whole feature map: a flat strip, which crops of a fitting size never had, changes them everywhere, and
    cells are no longer found, with wide strips most of them. A border of mirrored image leaves them about as they are.
    Boxes end at the image's own border, as always.

    In training images are padded as by Detectron2: mirrored cells would be objects without annotations.
    """

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """As in ``GeneralizedRCNN``; in evaluation the padding of each image is its own reflection."""
        if self.training:
            return super().preprocess_image(batched_inputs)
        sizes = [tuple(inputs["image"].shape[-2:]) for inputs in batched_inputs]
        stride = max(self.backbone.size_divisibility, 1)  # 0 of a backbone that takes any size
        height, width = (-(-max(sides) // stride) * stride for sides in zip(*sizes, strict=True))
        padded = [{**inputs, "image": reflected(inputs["image"], height, width)} for inputs in batched_inputs]
        return ImageList(super().preprocess_image(padded).tensor, sizes)


def reflected(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """An image ``(C, H, W)`` continued to ``(C, height, width)`` below and to the right by its mirror images.

    Example:
        >>> reflected(torch.tensor([[[1, 2, 3]]]), 2, 8).tolist()
        [[[1, 2, 3, 3, 2, 1, 1, 2], [1, 2, 3, 3, 2, 1, 1, 2]]]
    """
    rows, columns = (
        _mirrored(own, wanted, image.device) for own, wanted in zip(image.shape[-2:], (height, width), strict=True)
    )
    return image[:, rows][:, :, columns]


def _mirrored(size: int, wanted: int, device: torch.device) -> torch.Tensor:
    """Indices 0 … size - 1, size - 1 … 0, 0 …, ``wanted`` of them."""
    place = torch.arange(wanted, device=device) % (2 * size)
    return torch.minimum(place, 2 * size - 1 - place)
