"""Networks that say of every pixel whether it is in a cell and where its centre is, alone or beside an R-CNN."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from cellseg_d2.detections.dense import DenseMaps, DenseParams, maps_to_detections
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams, fuse
from cellseg_d2.detections.instances import to_detections
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

    In training, inputs have the targets of :func:`cellseg_d2.masks.dense_targets.dense_targets` as tensors under ``"dense"``.
    Predictions are Detectron2's ``Instances``, as of an R-CNN: boxes, scores, classes and masks on the boxes' grids.
    """

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
        """Losses in training, otherwise predictions; as of ``GeneralizedRCNN``."""
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        maps = self.dense_head(images.tensor, features)
        return {
            **self.box_losses(batched_inputs, images, features),
            **self.dense_head.losses(maps, [inputs[TARGETS] for inputs in batched_inputs]),
        }

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Instances] | list[dict]:
        """As of ``GeneralizedRCNN``."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        maps = self.dense_head(images.tensor, features)
        boxes = self.box_detections(images, features)
        results = [
            self.merged(own, *size, boxes and boxes[i])
            for i, (own, size) in enumerate(zip(maps, images.image_sizes, strict=True))
        ]
        return GeneralizedRCNN._postprocess(results, batched_inputs, images.image_sizes) if do_postprocess else results

    def box_losses(
        self, batched_inputs: list[dict], images: ImageList, features: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Losses of what else learns from the features: nothing."""
        return {}

    def box_detections(self, images: ImageList, features: Mapping[str, torch.Tensor]) -> list[Instances] | None:
        """What else is detected in the images: nothing."""
        return None

    def merged(self, maps: torch.Tensor, height: int, width: int, boxes: Instances | None) -> Instances:
        """The detections in one image, of ``height`` × ``width`` pixels, with ``maps`` of its padded form."""
        return to_instances(self.dense_detections(maps, height, width), maps.device)

    def dense_detections(self, maps: torch.Tensor, height: int, width: int) -> Detections:
        """The cells that the maps of one image show, see :func:`cellseg_d2.detections.dense.maps_to_detections`."""
        stride = self.dense_head.stride
        maps = maps[:, : -(-height // stride), : -(-width // stride)].float()
        kinds = maps[CLASSES].softmax(dim=0) if len(maps[CLASSES]) else torch.ones_like(maps[FOREGROUND])
        arrays = (part.cpu().numpy() for part in (maps[FOREGROUND][0].sigmoid(), maps[FLOW], kinds))
        return maps_to_detections(DenseMaps(stride, *arrays), height, width, self.dense_params)


@META_ARCH_REGISTRY.register()
class DenseRCNN(DenseSegmenter):
    """A Mask R-CNN and a dense branch that share a backbone and learn together.

    Each is a view of the image; their detections are merged as those of several views or models are
    (:func:`cellseg_d2.detections.fusion.fuse`).
    """

    @configurable
    def __init__(self, *, fusion: FusionParams, dense_weight: float, **parts):
        """
        Args:
            fusion: how the detections are merged.
            dense_weight: how much those of the dense branch count, where those of the boxes count 1.
            **parts: of :class:`DenseSegmenter` and ``GeneralizedRCNN``.
        """
        super().__init__(**parts)
        self.fusion = fusion
        self.dense_weight = dense_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        parts = ReflectionPaddedRCNN.from_config(cfg)
        node = cfg.TEST.FUSION
        fusion = FusionParams(node.IOU, node.COMPARED, node.BOXES, node.ABSENCE, cfg.TEST.POSTPROCESS.VOTE)
        weight = cfg.MODEL.DENSE.FUSION_WEIGHT
        return {**parts, **_dense_parts(cfg, parts["backbone"]), "fusion": fusion, "dense_weight": weight}

    def box_losses(
        self, batched_inputs: list[dict], images: ImageList, features: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Those of proposals and heads."""
        truth = [inputs["instances"].to(self.device) for inputs in batched_inputs]
        proposals, losses = self.proposal_generator(images, features, truth)
        return {**self.roi_heads(images, features, proposals, truth)[1], **losses}

    def box_detections(self, images: ImageList, features: Mapping[str, torch.Tensor]) -> list[Instances] | None:
        """The boxes with their masks."""
        proposals, _ = self.proposal_generator(images, features, None)
        return self.roi_heads(images, features, proposals, None)[0]

    def merged(self, maps: torch.Tensor, height: int, width: int, boxes: Instances | None) -> Instances:
        """The detections of both in one image."""
        views = [to_detections(boxes), self.dense_detections(maps, height, width)]
        return to_instances(fuse(views, self.fusion, [1.0, self.dense_weight]), maps.device)


def to_instances(detections: Detections, device: torch.device) -> Instances:
    """Detections with probabilities for masks as a network's ``Instances``, with ``pred_masks`` ``(N, 1, M, M)``."""
    return Instances(
        (detections.height, detections.width),
        pred_boxes=Boxes(torch.from_numpy(detections.boxes).to(device)),
        scores=torch.from_numpy(detections.scores).to(device),
        pred_classes=torch.from_numpy(detections.classes).to(device),
        pred_masks=torch.from_numpy(detections.masks[:, None]).to(device),
    )


def _dense_parts(cfg: CfgNode, backbone: nn.Module) -> dict:
    dense = cfg.MODEL.DENSE
    params = DenseParams(
        threshold=dense.THRESHOLD,
        min_pixels=dense.MIN_PIXELS,
        max_flow_error=dense.MAX_FLOW_ERROR,
        mask_size=dense.MASK_SIZE,
        limit=cfg.TEST.DETECTIONS_PER_IMAGE,
    )
    return {"dense_head": build_dense_head(cfg, backbone.output_shape()), "dense_params": params}
