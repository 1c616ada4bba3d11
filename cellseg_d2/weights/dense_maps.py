"""A network's dense branch by itself, for other programs: an image in, maps out, by PyTorch's operators alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from cellseg_d2.config import class_names
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.dense_rcnn import DenseSegmenter, dense_stride
from cellseg_d2.modeling.unet_head import BOUNDARY, CLASSES, FLOW, FOREGROUND
from cellseg_d2.simulation import simulate_image
from cellseg_d2.weights.weights import load_trained

INPUT, OUTPUT = "image", "maps"
# Height and width of the image that exporters see, in multiples of the least side, and batches that are compared.
_TRACED, _COMPARED = (3, 4), ((1, 3, 4), (1, 2, 2), (2, 4, 3), (1, 3, 7))
_TOLERANCE = 1e-4


class DenseMapsNetwork(nn.Module):
    """From grey levels to the probabilities and the flow of the dense branch; has its parameters and the backbone's.

    The input is float32 ``(B, C, H, W)``, grey levels 0 … 255; ``H`` and ``W`` are multiples of ``divisor``, 2 of them
    or more: a group norm needs several pixels. The output is float32 ``(B, M, H / stride, W / stride)``, its channels
    are named by :func:`map_names`.
    """

    def __init__(self, network: DenseSegmenter):
        """
        Args:
            network: shares its parts.
        """
        super().__init__()
        parts: Any = network  # nn.Module's attributes are typed as tensors or modules
        self.backbone, self.dense_head = parts.backbone, parts.dense_head
        self.register_buffer("mean", parts.pixel_mean[None].detach().clone())
        self.register_buffer("std", parts.pixel_std[None].detach().clone())
        self.channels = len(parts.pixel_mean)
        self.stride = int(parts.dense_head.stride)
        self.divisor = max(int(parts.backbone.size_divisibility), self.stride)

    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        image = (image - self.mean) / self.std
        maps = self.dense_head.predict(self.dense_head.decode(image, self.backbone(image)))
        parts = [maps[:, FOREGROUND].sigmoid(), maps[:, BOUNDARY].sigmoid(), maps[:, FLOW]]
        if self.dense_head.num_classes > 1:
            parts.append(maps[:, CLASSES].softmax(dim=1))
        return torch.cat(parts, dim=1)

    def example(self) -> torch.Tensor:
        """Simulated cells that an exporter can trace the network with."""
        return simulated_input(self.channels, *(side * self.divisor for side in _TRACED))[None]


def map_names(cfg: CfgNode) -> list[str]:
    """Names of the maps' channels: probabilities but for the flow, a unit vector to the cell's centre."""
    names = class_names(cfg)
    return ["foreground", "boundary", "flow_x", "flow_y", *(names if len(names) > 1 else [])]


def load_maps_network(cfg: CfgNode, weights: str | Path) -> DenseMapsNetwork:
    """The dense branch of a trained network, on the CPU, in evaluation mode and 32 bits.

    Raises:
        CellSegError: the network has none, or the weights do not fit.
    """
    if not dense_stride(cfg):
        raise CellSegError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, which has no dense branch whose maps could be "
            "handed on; --torchscript takes networks of boxes, and DenseRCNN or DenseSegmenter have maps"
        )
    model: Any = build_network(cfg).cpu()
    load_trained(model, weights)
    return DenseMapsNetwork(model).eval().to(memory_format=torch.contiguous_format)


def compare_maps(network: DenseMapsNetwork, exported: Callable[[np.ndarray], np.ndarray], what: str) -> None:
    """Compare a network's maps with an exported network's, on images of several sizes.

    Raises:
        CellSegError: they differ, ``what`` being words for the exported one.
    """
    for batch, rows, columns in _COMPARED:
        height, width = rows * network.divisor, columns * network.divisor
        image = torch.stack([simulated_input(network.channels, height, width, seed) for seed in range(batch)])
        with torch.no_grad():
            expected = network(image).numpy()
        found = exported(image.numpy())
        if expected.shape != found.shape or not np.abs(expected - found).max() <= _TOLERANCE:  # nor is a NaN
            raise CellSegError(
                f"{what} gives other maps than the network in an image of {width} × {height} pixels; it has a part "
                "that the exporter does not follow, and was not written"
            )


def simulated_input(channels: int, height: int, width: int, seed: int | None = None) -> torch.Tensor:
    """Simulated neurons as float32 ``(channels, height, width)``, 0 … 255."""
    image, _ = simulate_image("cort", np.random.default_rng(height if seed is None else seed), height, width)
    return torch.from_numpy(image).float().expand(channels, -1, -1).contiguous()


def scale_notes(cfg: CfgNode) -> dict[str, object]:
    """What a program needs to know of images that such a network is given."""
    return {
        "channels": len(cfg.MODEL.PIXEL_MEAN),
        "zoom": cfg.INPUT.ZOOM_TEST,
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "cell_diameter": cfg.INPUT.CELL_DIAMETER,
        "intensity": cfg.INPUT.INTENSITY,
        "intensity_percentiles": list(cfg.INPUT.INTENSITY_PERCENTILES),
    }
