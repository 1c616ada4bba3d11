"""Networks that predict for every pixel whether it is in a cell and where the cell's centre is, alone or beside an
R-CNN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from cellseg_d2.detections.dense import DenseMaps, DenseParams, maps_to_detections
from cellseg_d2.detections.detections import Detections, vote_class
from cellseg_d2.detections.fusion import FusionParams, fuse
from cellseg_d2.detections.instances import to_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.reflection_padding import ReflectionPaddedRCNN
from cellseg_d2.modeling.unet_head import CLASSES, FLOW, FOREGROUND, build_dense_head

# The key under which a data loader gives the targets: tensors by the names of DenseTargets.
TARGETS = "dense"


def dense_stride(cfg: CfgNode) -> int:
    """The stride at which the configuration's network learns from :func:`dense_targets`; 0 if it does not."""
    name = cfg.MODEL.META_ARCHITECTURE
    dense = name in META_ARCH_REGISTRY and issubclass(META_ARCH_REGISTRY.get(name), DenseSegmenter)
    return cfg.MODEL.DENSE.STRIDE if dense else 0


@META_ARCH_REGISTRY.register()
class DenseSegmenter(ReflectionPaddedRCNN):
    """A segmenter without boxes: a backbone, a decoder, and cells from the field that it predicts, as Cellpose's.

    In training, inputs have the targets of :func:`cellseg_d2.masks.dense_targets.dense_targets` as tensors under
    ``"dense"``. Predictions are Detectron2's ``Instances``, as of an R-CNN: boxes, scores, classes and masks on the
    boxes' grids.
    """

    # A trained DenseRCNN is one of these as well: what only its boxes need is passed over when weights are loaded.
    ignored_weights: tuple[str, ...] = ("proposal_generator.", "roi_heads.", "mask_context.")

    @configurable
    def __init__(self, *, dense_head: nn.Module, dense_params: DenseParams, **parts):
        """
        Args:
            dense_head: see :func:`cellseg_d2.modeling.unet_head.build_dense_head`.
            dense_params: how maps become detections.
            **parts: of ``GeneralizedRCNN``.
        """
        super().__init__(**parts)
        self.dense_head = dense_head
        self.dense_params = dense_params

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "proposal_generator": None,
            "roi_heads": None,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            **_dense_parts(cfg, backbone),
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """Losses in training, otherwise predictions, as in ``GeneralizedRCNN``."""
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        decoded = self.dense_head.decode(images.tensor, features)
        targets = [inputs[TARGETS] for inputs in batched_inputs]
        return {
            **self.box_losses(batched_inputs, images, features, decoded),
            **self.dense_head.losses(self.dense_head.predict(decoded), targets),
        }

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Instances] | list[dict]:
        """As in ``GeneralizedRCNN``."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        decoded = self.dense_head.decode(images.tensor, features)
        results = self.detect(images, features, decoded)
        return GeneralizedRCNN._postprocess(results, batched_inputs, images.image_sizes) if do_postprocess else results

    def detect(self, images: ImageList, features: Mapping[str, torch.Tensor], decoded: torch.Tensor) -> list[Instances]:
        """The detections in each image, in its pixels as the network sees it."""
        found = self.dense_detections(decoded, images.image_sizes)
        return [to_instances(own, self.device) for own in found]

    def box_losses(
        self, batched_inputs: list[dict], images: ImageList, features: Mapping[str, torch.Tensor], decoded: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Losses besides those of the dense branch: none."""
        return {}

    def dense_detections(self, decoded: torch.Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The cells that the dense branch sees, see :func:`cellseg_d2.detections.dense.maps_to_detections`.

        Args:
            decoded: features of the decoder, of padded images.
            sizes: height and width of each image without its padding.
        """
        maps = zip(self._maps(decoded, sizes), sizes, strict=True)
        return [maps_to_detections(own, height, width, self.dense_params) for own, (height, width) in maps]

    @torch.no_grad()
    def dense_maps(self, batched_inputs: list[dict]) -> list[DenseMaps]:
        """Output of the dense branch for each image; inputs as in evaluation."""
        images = self.preprocess_image(batched_inputs)
        return self._maps(self.dense_head.decode(images.tensor, self.backbone(images.tensor)), images.image_sizes)

    def _maps(self, decoded: torch.Tensor, sizes: list[tuple[int, int]]) -> list[DenseMaps]:
        stride, found = self.dense_head.stride, []
        for padded, (height, width) in zip(self.dense_head.predict(decoded).float(), sizes, strict=True):
            own = padded[:, : -(-height // stride), : -(-width // stride)]
            kinds = own[CLASSES].softmax(dim=0) if len(own[CLASSES]) else torch.ones_like(own[FOREGROUND])
            arrays = (part.cpu().numpy() for part in (own[FOREGROUND][0].sigmoid(), own[FLOW], kinds))
            found.append(DenseMaps(stride, *arrays))
        return found


@META_ARCH_REGISTRY.register()
class DenseRCNN(DenseSegmenter):
    """A Mask R-CNN and a dense branch that share a backbone and learn together.

    Each is a view of the image; their detections are merged as those of several views or models are
    (:func:`cellseg_d2.detections.fusion.fuse`). The mask head may also see what the dense branch knows.
    """

    ignored_weights = ()

    @configurable
    def __init__(
        self, *, fusion: FusionParams, dense_weights: Sequence[float], mask_context: MaskContext | None, **parts
    ):
        """
        Args:
            fusion: how the detections are merged. Across classes means one class an image, whose weight then counts.
            dense_weights: how much those of the dense branch count in each class, where those of the boxes count 1; if
                all are 0 they are not made, and the branch only helps to learn.
            mask_context: what adds the branch's features to those that masks are predicted from.
            **parts: of :class:`DenseSegmenter` and ``GeneralizedRCNN``.
        """
        super().__init__(**parts)
        self.fusion = fusion
        self.dense_weights = np.asarray(dense_weights, dtype=np.float64)
        self.mask_context = mask_context
        if mask_context is not None:
            if not hasattr(self.roi_heads, "mask_in_features"):
                raise CellSegError(
                    "MODEL.DENSE.TO_MASK_HEAD needs heads such as StandardROIHeads, which pool features for masks, not "
                    f"{type(self.roi_heads).__name__}"
                )
            self.roi_heads.mask_in_features = [mask_context.name(level) for level in mask_context.levels]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        parts = ReflectionPaddedRCNN.from_config(cfg)
        dense, backbone = cfg.MODEL.DENSE, parts["backbone"]
        context = MaskContext(cfg.MODEL.ROI_HEADS.IN_FEATURES, backbone.output_shape(), dense.CHANNELS)
        return {
            **parts,
            **_dense_parts(cfg, backbone),
            "fusion": replace(FusionParams.from_config(cfg), across_classes=cfg.TEST.POSTPROCESS.VOTE),
            "dense_weights": _fusion_weights(cfg),
            "mask_context": context if dense.TO_MASK_HEAD else None,
        }

    def box_losses(
        self, batched_inputs: list[dict], images: ImageList, features: Mapping[str, torch.Tensor], decoded: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Losses of the proposals and heads."""
        truth = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        proposals, losses = self.proposal_generator(images, features, truth)
        return {**self.roi_heads(images, self._with_context(features, decoded), proposals, truth)[1], **losses}

    def detect(self, images: ImageList, features: Mapping[str, torch.Tensor], decoded: torch.Tensor) -> list[Instances]:
        """The detections of both in each image."""
        proposals, _ = self.proposal_generator(images, features, None)
        boxes, _ = self.roi_heads(images, self._with_context(features, decoded), proposals, None)
        if not self.dense_weights.any():
            return boxes
        dense = self.dense_detections(decoded, images.image_sizes)
        views = ((to_detections(own), other) for own, other in zip(boxes, dense, strict=True))
        return [to_instances(self._merged(*both), self.device) for both in views]

    def _merged(self, boxes: Detections, dense: Detections) -> Detections:
        weights = self.dense_weights
        if self.fusion.across_classes and (winner := vote_class(boxes, dense)) is not None:
            weights = np.full_like(weights, weights[winner])
        return fuse([boxes, dense], self.fusion, np.stack([np.ones_like(weights), weights]))

    def _with_context(self, features: Mapping[str, torch.Tensor], decoded: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**features, **(self.mask_context(features, decoded) if self.mask_context is not None else {})}


class MaskContext(nn.Module):
    """Adds a decoder's features to those of the levels that masks are predicted from, under other names.

    It begins by adding nothing: a trained mask head gives what it gave before, until both have learnt on.
    """

    def __init__(self, levels: list[str], input_shape: Mapping[str, ShapeSpec], channels: int):
        """
        Args:
            levels: names of outputs of the backbone.
            input_shape: shapes of these outputs.
            channels: number of channels of the decoder's features.
        """
        super().__init__()
        self.levels = list(levels)
        self.projections = nn.ModuleList(nn.Conv2d(channels, input_shape[level].channels, 1) for level in levels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @staticmethod
    def name(level: str) -> str:
        """Name of a level with the added features."""
        return f"{level}_dense"

    def forward(self, features: Mapping[str, torch.Tensor], decoded: torch.Tensor) -> dict[str, torch.Tensor]:
        """The levels with the decoder's features, ``(B, channels, h, w)``, averaged over the blocks of each level."""
        return {
            self.name(level): features[level] + projection(F.adaptive_avg_pool2d(decoded, features[level].shape[-2:]))
            for level, projection in zip(self.levels, self.projections, strict=True)
        }


def to_instances(detections: Detections, device: torch.device) -> Instances:
    """Detections with probabilities for masks as a network's ``Instances``, with ``pred_masks`` ``(N, 1, M, M)``."""
    return Instances(
        (detections.height, detections.width),
        pred_boxes=Boxes(torch.from_numpy(detections.boxes).to(device)),
        scores=torch.from_numpy(detections.scores).to(device),
        pred_classes=torch.from_numpy(detections.classes).to(device),
        pred_masks=torch.from_numpy(detections.masks[:, None]).to(device),
    )


def _fusion_weights(cfg: CfgNode) -> list[float]:
    """The weight of the dense branch's detections in each class.

    Raises:
        CellSegError: there is not one factor for each class, or one is negative or not finite.
    """
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    factors = cfg.MODEL.DENSE.CLASS_FUSION_WEIGHTS or [1.0] * classes
    numbers = all(isinstance(factor, int | float) and 0 <= factor < math.inf for factor in factors)
    if not numbers or len(factors) != classes:
        names = f" ({', '.join(cfg.MODEL.CLASS_NAMES)})" if cfg.MODEL.CLASS_NAMES else ""
        raise CellSegError(
            f"MODEL.DENSE.CLASS_FUSION_WEIGHTS needs a number of at least 0 for each of the {classes} classes{names}, "
            f"not {list(factors)}; [] for the same in all of them"
        )
    return [cfg.MODEL.DENSE.FUSION_WEIGHT * factor for factor in factors]


def _dense_parts(cfg: CfgNode, backbone: nn.Module) -> dict:
    return {
        "dense_head": build_dense_head(cfg, backbone.output_shape()),
        "dense_params": DenseParams.from_config(cfg),
    }
