"""One trained Mask R-CNN as a function from an image to cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from cellseg_d2.config import fusion_params, postprocess_params
from cellseg_d2.data.augmentations.build import build_test_augmentations
from cellseg_d2.data.augmentations.resize import ResizeTransform
from cellseg_d2.data.dataset_mapper import image_to_tensor
from cellseg_d2.data.intensity import to_uint8
from cellseg_d2.inference.detections import Detections
from cellseg_d2.inference.fusion import FusionParams, fuse
from cellseg_d2.inference.instances import UnpastedMasks, to_detections
from cellseg_d2.inference.postprocess import Cells, PostprocessParams, postprocess
from cellseg_d2.inference.tta import View, detect_views, views_from_config
from cellseg_d2.inference.weights import load_trained


class Segmenter(ABC):
    """What turns an image into cells: one model, looking once or several times, or several models.

    Attributes:
        params: how detections become cells.
        fusion: how detections of several views are merged; across classes where ``params.vote`` says that an image
            holds one type only.
        class_names: one for each class.
    """

    params: PostprocessParams
    fusion: FusionParams
    class_names: list[str]

    @abstractmethod
    def detect_views(self, image: np.ndarray) -> tuple[list[Detections], list[float]]:
        """What is detected in each view of a grey image ``(H, W)``, in its coordinates, and the weight of each view."""

    def detect(self, image: np.ndarray) -> Detections:
        """Everything that is detected, before any threshold but the configuration's own.

        Args:
            image: grey ``(H, W)`` of any numeric type.
        """
        views, weights = self.detect_views(image)
        if len(views) == 1:
            return views[0]
        return fuse(views, replace(self.fusion, across_classes=self.params.vote), weights)

    def segment(self, image: np.ndarray) -> Cells:
        """The cells of a grey image ``(H, W)``: disjoint masks with scores and classes."""
        return postprocess(self.detect(image), self.params)


class CellSegmenter(Segmenter):
    """Segments one image after the other with one model.

    Args:
        model: a Detectron2 R-CNN with masks, on its device.
        augmentations: what an image goes through before the network: changes of size and nothing else.
        channels: of the network's input.
        params: how detections become cells.
        class_names: one for each class of the model.
        intensity, intensity_percentiles: see :func:`cellseg_d2.data.intensity.to_uint8`.
        views: orientations and scales for test-time augmentation, see :func:`cellseg_d2.inference.tta.make_views`; by
            default the image as it is.
        fusion: how detections of several views are merged.

    Example:
        >>> segmenter = CellSegmenter.from_config(cfg, "output/quickstart/model_best.pth")  # doctest: +SKIP
        >>> cells = segmenter.segment(read_image("cells.png"))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        augmentations: Sequence[T.Augmentation],
        channels: int,
        params: PostprocessParams,
        class_names: Sequence[str],
        intensity: str = "auto",
        intensity_percentiles: tuple[float, float] = (0.1, 99.9),
        views: Sequence[View] = (View(),),
        fusion: FusionParams | None = None,
    ):
        self._model = UnpastedMasks(model).eval()
        self._augmentations = T.AugmentationList(augmentations)
        self._channels = channels
        self.params = params
        self.class_names = list(class_names)
        self._intensity = intensity
        self._intensity_percentiles = tuple(intensity_percentiles)
        self.views = list(views)
        self.fusion = fusion or FusionParams()

    @classmethod
    def from_config(cls, cfg: CfgNode, weights: str | Path) -> CellSegmenter:
        """The model of a configuration with the weights of a checkpoint (``.pth``)."""
        model = build_model(cfg)
        load_trained(model, weights)
        return cls(
            model,
            augmentations=build_test_augmentations(cfg),
            channels=len(cfg.MODEL.PIXEL_MEAN),
            params=postprocess_params(cfg),
            class_names=cfg.MODEL.CLASS_NAMES or [f"class {i + 1}" for i in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)],
            intensity=cfg.INPUT.INTENSITY,
            intensity_percentiles=cfg.INPUT.INTENSITY_PERCENTILES,
            views=views_from_config(cfg),
            fusion=fusion_params(cfg),
        )

    def detect_views(self, image: np.ndarray) -> tuple[list[Detections], list[float]]:
        """Detections of each of ``views``, all of the same weight."""
        image = to_uint8(image, self._intensity, self._intensity_percentiles)
        return detect_views(self._detect, image, self.views), [1.0] * len(self.views)

    @torch.no_grad()
    def _detect(self, image: np.ndarray, scale: float) -> Detections:
        height, width = image.shape
        tensor = image_to_tensor(self._resize(image, scale), self._channels)
        output = self._model([{"image": tensor, "height": height, "width": width}])[0]
        return to_detections(output["instances"])

    def _resize(self, image: np.ndarray, scale: float) -> np.ndarray:
        """The network's usual input, or ``scale`` times its size; interpolated once."""
        aug_input = T.AugInput(image)
        self._augmentations(aug_input)
        if scale == 1:
            return aug_input.image
        height, width = (max(1, round(side * scale)) for side in aug_input.image.shape)
        return ResizeTransform(*image.shape, height, width).apply_image(image)
