"""A U-Net's decoder over a feature pyramid, with a head that predicts cells for every pixel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from cellseg_d2.errors import CellSegError

STRIDES = (1, 2, 4)
# Channels of the prediction before those of the classes: foreground, boundary, flow in x and y.
FOREGROUND, BOUNDARY, FLOW, CLASSES = slice(0, 1), slice(1, 2), slice(2, 4), slice(4, None)


def build_dense_head(cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> nn.Module:
    """The head that ``MODEL.DENSE.NAME`` names in Detectron2's registry of heads for whole images."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.DENSE.NAME)(cfg, input_shape)


@SEM_SEG_HEADS_REGISTRY.register()
class UNetHead(nn.Module):
    """Decodes a feature pyramid from coarse to fine, joining each level with the decoded coarser ones.

    As in a U-Net (Ronneberger, Fischer & Brox, MICCAI 2015), but the skip connections are sums, which take half the
    operations of a concatenation. The finest level's own pixels and, as one more skip connection, those of the image
    are worked on at its stride, and the prediction is made for each of the pixels that it stands for (sub-pixel
    convolution: Shi et al., CVPR 2016): on a CPU, layers at the image's full size would take most of the time.

    Also computes the losses of its predictions.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        in_features: list[str],
        image_channels: int,
        channels: int,
        num_classes: int,
        stride: int = 2,
        stem: bool = True,
        norm: str = "GN",
        loss_weights: Mapping[str, float] | None = None,
    ):
        """
        Args:
            input_shape: shapes of the backbone's outputs, by name.
            in_features: names of those that are used, in any order; strides must double from one to the next.
            image_channels: number of channels of the network's input.
            channels: number of channels of all layers.
            num_classes: number of classes; the class is predicted only if there are several.
            stride: stride of the predictions, 1, 2 or 4 pixels of the image.
            stem: whether the image itself is one of the skip connections.
            norm: norm of the layers, one of Detectron2's names.
            loss_weights: weights of the losses ``foreground``, ``boundary``, ``flow`` and ``class``.

        Raises:
            CellSegError: there is no such stride or pyramid.
        """
        super().__init__()
        missing = [name for name in in_features if name not in input_shape]
        if missing or not in_features:
            raise CellSegError(
                f"MODEL.DENSE.IN_FEATURES is {in_features}, but the backbone's outputs are {', '.join(input_shape)}"
            )
        levels = sorted(in_features, key=lambda name: -input_shape[name].stride)
        finest = input_shape[levels[-1]].stride
        if stride not in STRIDES or finest % stride:
            raise CellSegError(f"MODEL.DENSE.STRIDE is {stride}; it can be 1, 2 or 4, and must divide {finest}")
        self.levels, self.finest, self.stride = levels, finest, stride
        self.num_classes = num_classes
        self.loss_weights = dict(loss_weights or {})
        self.skips = nn.ModuleList(Conv2d(input_shape[name].channels, channels, 1) for name in levels)
        self.blocks = nn.ModuleList(_block(channels, channels, norm) for _ in levels)
        self.stem = _block(image_channels * finest**2, channels, norm) if stem else None
        self.last = _block(channels, channels, norm)
        self.predictor = Conv2d(channels, 4 * (finest // stride) ** 2, 1)
        # A layer of its own, at the decoder's stride, so that weights for other classes can be had without it.
        self.classifier = Conv2d(channels, num_classes, 1) if num_classes > 1 else None
        for layer in (self.predictor, *([self.classifier] if self.classifier else [])):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():  # most pixels are background
            self.predictor.bias[: 2 * (finest // stride) ** 2] = -2.0

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict:
        dense = cfg.MODEL.DENSE
        return {
            "input_shape": input_shape,
            "in_features": dense.IN_FEATURES,
            "image_channels": len(cfg.MODEL.PIXEL_MEAN),
            "channels": dense.CHANNELS,
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "stride": dense.STRIDE,
            "stem": dense.STEM,
            "norm": dense.NORM,
            "loss_weights": {
                "foreground": dense.FOREGROUND_WEIGHT,
                "boundary": dense.BOUNDARY_WEIGHT,
                "flow": dense.FLOW_WEIGHT,
                "class": dense.CLASS_WEIGHT,
            },
        }

    def decode(self, images: torch.Tensor, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The decoder's last features, ``(B, channels, H / finest, W / finest)``.

        Args:
            images: normalised and padded, ``(B, C, H, W)``.
            features: features of the backbone, by name.
        """
        x = None
        for name, skip, block in zip(self.levels, self.skips, self.blocks, strict=True):
            level = skip(features[name])
            if x is not None:
                level = level + F.interpolate(x, size=level.shape[-2:], mode="nearest")
            x = block(level)
        if self.stem is not None:
            x = x + self.stem(F.pixel_unshuffle(_padded(images, x.shape, self.finest), self.finest))
        return self.last(x)

    def predict(self, decoded: torch.Tensor) -> torch.Tensor:
        """Predictions ``(B, 4 + K, H / stride, W / stride)`` from the features of :meth:`decode`.

        Logits of the foreground and of the boundary, the flow in x and y, and logits of the ``K`` classes where there
        are several.
        """
        finer = self.finest // self.stride
        maps = F.pixel_shuffle(self.predictor(decoded), finer)
        if self.classifier is None:
            return maps
        return torch.cat([maps, F.interpolate(self.classifier(decoded), scale_factor=finer, mode="nearest")], dim=1)

    def losses(self, maps: torch.Tensor, targets: list[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """The losses of predictions.

        Those of foreground and boundary are means over all pixels but those to be ignored, those of the flow (squared
        difference) and of the classes over the pixels of cells.

        Args:
            maps: result of :meth:`predict`.
            targets: for each image the tensors of :class:`cellseg_d2.masks.dense_targets.DenseTargets`; they may be
                smaller than the maps, whose padding is not learnt from.
        """
        wanted = {name: _batch([own[name] for own in targets], maps, fill) for name, fill in _FILLS.items()}
        maps = maps.float()
        inside = wanted["foreground"] >= 0
        cells = wanted["classes"] >= 0

        def binary(channel: slice, name: str) -> torch.Tensor:
            loss = F.binary_cross_entropy_with_logits(
                maps[:, channel][:, 0], wanted[name].clamp(min=0), reduction="none"
            )
            return (loss * inside).sum() / inside.sum().clamp(min=1)

        area = cells.sum().clamp(min=1)
        flow = ((maps[:, FLOW] - wanted["flow"]) ** 2).sum(dim=1)
        losses = {
            "foreground": binary(FOREGROUND, "foreground"),
            "boundary": binary(BOUNDARY, "boundary"),
            "flow": (flow * cells).sum() / area,
        }
        if self.num_classes > 1:
            loss = F.cross_entropy(maps[:, CLASSES], wanted["classes"], ignore_index=-1, reduction="sum")
            losses["class"] = loss / area
        return {f"loss_dense_{name}": self.loss_weights.get(name, 1.0) * loss for name, loss in losses.items()}


# What the padding of a batch is filled with, by the target's name.
_FILLS = {"foreground": -1, "boundary": 0, "flow": 0, "classes": -1}


def _block(inputs: int, outputs: int, norm: str) -> Conv2d:
    return Conv2d(inputs, outputs, 3, padding=1, bias=not norm, norm=get_norm(norm, outputs), activation=F.relu)


def _padded(images: torch.Tensor, shape: torch.Size, stride: int) -> torch.Tensor:
    """The images as large as features of a stride mean them to be."""
    down, right = (stride * side - own for side, own in zip(shape[-2:], images.shape[-2:], strict=True))
    return F.pad(images, (0, right, 0, down)) if down or right else images


def _batch(maps: list[torch.Tensor], like: torch.Tensor, fill: float) -> torch.Tensor:
    """Maps ``(…, h, w)`` of several images as one tensor of the size and on the device of ``like``."""
    height, width = like.shape[-2:]
    return torch.stack(
        [F.pad(own.to(like.device), (0, width - own.shape[-1], 0, height - own.shape[-2]), value=fill) for own in maps]
    )
