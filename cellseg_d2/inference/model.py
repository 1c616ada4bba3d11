"""One trained Mask R-CNN as a segmenter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from cellseg_d2.config import class_names, load_config
from cellseg_d2.data.augmentations.build import build_test_augmentations
from cellseg_d2.data.augmentations.resize import ResizeTransform
from cellseg_d2.data.dataset_mapper import image_to_tensor
from cellseg_d2.detections.dense import DenseMaps
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams, resample_masks
from cellseg_d2.detections.instances import UnpastedMasks, to_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.intensity import to_uint8
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.inference.tta import View, detect_views, views_from_config
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.dense_rcnn import DenseSegmenter
from cellseg_d2.modeling.folding import fold_frozen_norms
from cellseg_d2.modeling.precision import prediction_dtype
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.weights.model_folder import CONFIG, find_model
from cellseg_d2.weights.weights import find_weights, load_trained

# Pixels of the network's input along each side: a coarsest feature map of a single pixel cannot be normalised.
SMALLEST_INPUT = 64


class CellSegmenter(Segmenter):
    """Segments one image after the other with one model.

    Args:
        model: a Detectron2 R-CNN with masks, on its device.
        augmentations: what an image goes through before the network: changes of size and nothing else.
        channels: of the network's input.
        params: how detections become cells.
        class_names: one for each class of the model.
        intensity, intensity_percentiles, tile, cell_diameter, scales, scale_neighbors: see :class:`Segmenter`.
        views: orientations and scales for test-time augmentation, see :func:`cellseg_d2.inference.tta.make_views`; by
            default the image as it is.
        fusion: how detections of several views are merged.
        dtype: of PyTorch's autocast; None computes in the network's own precision.
        configuration: of the network, where there is one; only for :meth:`settings`.

    Example:
        >>> from cellseg_d2 import CellSegmenter  # doctest: +SKIP
        >>> segmentation = CellSegmenter.from_pretrained("cells").segment("cells.png")  # doctest: +SKIP
        >>> segmentation.measure().to_csv("cells.csv")  # doctest: +SKIP
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
        tile: int | None = None,
        cell_diameter: float = 0.0,
        scales: Sequence[float] = (1.0,),
        scale_neighbors: int = 0,
        views: Sequence[View] = (View(),),
        fusion: FusionParams | None = None,
        dtype: torch.dtype | None = None,
        configuration: CfgNode | None = None,
    ):
        self._model = UnpastedMasks(model, dtype).eval()
        self._augmentations = T.AugmentationList(augmentations)
        self._channels = channels
        self.params = params
        self.class_names = list(class_names)
        self.intensity = intensity
        self.intensity_percentiles = tuple(intensity_percentiles)
        self.tile = tile
        self.cell_diameter = cell_diameter
        self.scales = tuple(scales)
        self.scale_neighbors = scale_neighbors
        self.views = list(views)
        self.fusion = fusion or FusionParams()
        self._configuration = configuration

    @classmethod
    def from_pretrained(cls, model: str | Path = "cells", device: str = "auto") -> CellSegmenter:
        """A model that comes with the project, or one in a folder, with its own post-processing.

        Args:
            model: see :func:`cellseg_d2.weights.model_folder.find_model`.
            device: ``"cpu"``, ``"cuda"``, or ``"auto"``, a GPU where there is one.

        Raises:
            CellSegError: there is no such model, or it is damaged.
        """
        folder = find_model(model)
        cfg = load_config(folder / CONFIG, ["MODEL.DEVICE", device])
        return cls.from_config(cfg, find_weights(folder / CONFIG))

    @classmethod
    def from_config(cls, cfg: CfgNode, weights: str | Path) -> CellSegmenter:
        """The model of a configuration with the weights of a checkpoint (``.pth`` or ``.safetensors``)."""
        model = build_network(cfg)
        load_trained(model, weights)
        fold_frozen_norms(model.eval())
        return cls.from_network(cfg, model)

    @classmethod
    def from_network(cls, cfg: CfgNode, model: nn.Module) -> CellSegmenter:
        """A network as it is, with the settings of its configuration; it is put into evaluation mode."""
        by_factor = cfg.INPUT.ZOOM_TEST > 0
        return cls(
            model,
            augmentations=build_test_augmentations(cfg),
            channels=len(cfg.MODEL.PIXEL_MEAN),
            params=PostprocessParams.from_config(cfg),
            class_names=class_names(cfg),
            intensity=cfg.INPUT.INTENSITY,
            intensity_percentiles=cfg.INPUT.INTENSITY_PERCENTILES,
            tile=cfg.TEST.TILE if by_factor else None,
            cell_diameter=cfg.INPUT.CELL_DIAMETER if by_factor else 0.0,
            scales=cfg.TEST.SCALES if by_factor else (1.0,),
            scale_neighbors=cfg.TEST.SCALE_NEIGHBORS,
            views=views_from_config(cfg),
            fusion=FusionParams.from_config(cfg),
            dtype=prediction_dtype(cfg.TEST.PRECISION, cfg.MODEL.DEVICE),
            configuration=cfg,
        )

    def networks(self) -> list[nn.Module]:
        """The model."""
        return [self._model]

    def settings(self) -> dict[str, object]:
        """See :meth:`Segmenter.settings`; weights are known by their hash, wherever they came from."""
        own = {
            "weights": _digest(self._model),
            "precision": str(self._model.dtype or "float32").removeprefix("torch."),
            "channels": self._channels,
            "views": [asdict(view) for view in self.views],
            "fusion": asdict(self.fusion),
        }
        if (cfg := self._configuration) is not None:
            model = {key: value for key, value in cfg.MODEL.items() if key != "WEIGHTS"}
            own |= {"MODEL": model, "INPUT": cfg.INPUT, "TEST": {"DETECTIONS_PER_IMAGE": cfg.TEST.DETECTIONS_PER_IMAGE}}
        return super().settings() | own

    def detect_views(self, image: np.ndarray, scale: float = 1.0) -> tuple[list[Detections], list[float]]:
        """Detections of each of ``views``, all of the same weight."""
        views = [replace(view, scale=view.scale * scale) for view in self.views]
        return detect_views(self._detect, image, views), [1.0] * len(views)

    @property
    def glance_is_look(self) -> bool:
        return len(self.views) == 1 and self.views[0] == View()

    def glance(self, image: np.ndarray, scale: float) -> Detections:
        """See :meth:`Segmenter.glance`; without test-time augmentation."""
        return self._detect(image, scale)

    def dense_maps(self, image: np.ndarray) -> DenseMaps:
        """What the network's dense branch says about a grey image ``(H, W)`` of any numeric type, seen as a whole.

        Raises:
            CellSegError: the network has no such branch.
        """
        network = self._model.model
        if not isinstance(network, DenseSegmenter):
            raise CellSegError(
                f"the network is a {type(network).__name__}, which has no dense branch: MODEL.META_ARCHITECTURE "
                "DenseSegmenter and DenseRCNN have one"
            )
        seen = self._resize(to_uint8(image, self.intensity, self.intensity_percentiles), 1.0)
        return network.dense_maps([{"image": image_to_tensor(seen, self._channels)}])[0]

    @torch.no_grad()
    def _detect(self, image: np.ndarray, scale: float) -> Detections:
        height, width = image.shape
        resized = self._resize(image, scale)
        missing = np.maximum(0, SMALLEST_INPUT - np.array(resized.shape))
        if missing.any():  # enlarged by its own border, and what is found there cut off again
            more = np.ceil(missing * image.shape / resized.shape).astype(int).tolist()
            padded = np.pad(image, [(0, pixels) for pixels in more], mode="edge")
            return _inside(self._detect(padded, scale), height, width)
        tensor = image_to_tensor(resized, self._channels)
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


def _digest(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers that are saved with a model."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _inside(found: Detections, height: int, width: int) -> Detections:
    """The parts of soft detections that lie in the first rows and columns of an image."""
    boxes = np.minimum(found.boxes, np.array([width, height, width, height], dtype=np.float32))
    found, boxes = found.select(keep := (boxes[:, 2:] > boxes[:, :2]).all(axis=1)), boxes[keep]
    masks = resample_masks(found.masks, found.boxes, boxes, found.masks.shape[-1])
    return replace(found, height=height, width=width, boxes=boxes, masks=masks)
