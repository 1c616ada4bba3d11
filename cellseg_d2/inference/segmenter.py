"""One trained Mask R-CNN as a function from an image to cells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from cellseg_d2.config import postprocess_params
from cellseg_d2.data.augmentations.build import build_test_augmentations
from cellseg_d2.data.dataset_mapper import image_to_tensor
from cellseg_d2.data.intensity import to_uint8
from cellseg_d2.inference.detections import Detections
from cellseg_d2.inference.instances import UnpastedMasks, to_detections
from cellseg_d2.inference.postprocess import Cells, PostprocessParams, postprocess
from cellseg_d2.inference.weights import load_trained


class CellSegmenter:
    """Segments one image after the other.

    Args:
        model: a Detectron2 R-CNN with masks, on its device.
        augmentations: what an image goes through before the network, usually a change of size.
        channels: of the network's input.
        params: how detections become cells.
        class_names: one for each class of the model.
        intensity, intensity_percentiles: see :func:`cellseg_d2.data.intensity.to_uint8`.

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
    ):
        self._model = UnpastedMasks(model).eval()
        self._augmentations = T.AugmentationList(augmentations)
        self._channels = channels
        self.params = params
        self.class_names = list(class_names)
        self._intensity = intensity
        self._intensity_percentiles = tuple(intensity_percentiles)

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
        )

    @torch.no_grad()
    def detect(self, image: np.ndarray) -> Detections:
        """Everything that the network detects, before any threshold but the configuration's own.

        Args:
            image: grey ``(H, W)`` of any numeric type.
        """
        height, width = image.shape
        aug_input = T.AugInput(to_uint8(image, self._intensity, self._intensity_percentiles))
        self._augmentations(aug_input)
        tensor = image_to_tensor(aug_input.image, self._channels)
        output = self._model([{"image": tensor, "height": height, "width": width}])[0]
        return to_detections(output["instances"])

    def segment(self, image: np.ndarray) -> Cells:
        """The cells of a grey image ``(H, W)``: disjoint masks with scores and classes."""
        return postprocess(self.detect(image), self.params)
