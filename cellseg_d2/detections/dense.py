"""Convert the maps of a dense branch to the detections of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.flow_instances import follow_flows
from cellseg_d2.masks.flows import flow_field


@dataclass(frozen=True, eq=False)
class DenseMaps:
    """Output of a dense branch for one image, on a grid of ``h`` × ``w``.

    Attributes:
        stride: side of a pixel of the maps in pixels of the image.
        foreground: float32 ``(h, w)``, the probability that a pixel is in a cell.
        flow: float32 ``(2, h, w)``, x and y, toward the cell's centre; see :func:`cellseg_d2.masks.flows.flow_field`.
        classes: float32 ``(K, h, w)``, the probability of each class.
    """

    stride: int
    foreground: np.ndarray
    flow: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class DenseParams:
    """How maps become detections.

    Attributes:
        threshold: least probability of the foreground. Lower than a mask's threshold, so that the latter can be chosen
            later.
        min_pixels: number of pixels of the maps that a cell needs.
        max_flow_error: cells are dropped if the mean squared difference between the predicted field and the field of
            their masks is above this, as in Cellpose.
        mask_size: side of the grids of masks in cells.
        limit: largest number of detections; the best are kept.
    """

    threshold: float = 0.4
    min_pixels: int = 8
    max_flow_error: float = 1.0
    mask_size: int = 56
    limit: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise CellSegError(f"the foreground's threshold is {self.threshold}; it must be above 0 and below 1")

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> DenseParams:
        """``MODEL.DENSE`` of a configuration, with its limit of detections."""
        dense = cfg["MODEL"]["DENSE"]
        own = {name: dense[name.upper()] for name in ("threshold", "min_pixels", "max_flow_error", "mask_size")}
        return cls(**own, limit=cfg["TEST"]["DETECTIONS_PER_IMAGE"])


def maps_to_detections(maps: DenseMaps, height: int, width: int, params: DenseParams | None = None) -> Detections:
    """The cells of an image, each with its mask's probabilities.

    A cell's score is the mean probability of its pixels, times the mean part of the field that goes where the field of
    its mask would go: 1 if all of it does, 0 across it. Where a network is unsure of the direction, its field is short.

    Args:
        maps: maps of the image alone, without padding.
        height, width: size of the image in pixels.
        params: by default :class:`DenseParams`'s own.
    """
    params = params or DenseParams()
    labels = follow_flows(maps.flow, maps.foreground >= params.threshold, params.min_pixels)
    inside = np.flatnonzero(labels)
    cell = labels.ravel()[inside] - 1
    pixels = np.bincount(cell)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, values) / pixels

    found, wanted = (flow.reshape(2, -1)[:, inside] for flow in (maps.flow, flow_field(labels)))
    agreement = mean((found * wanted).sum(axis=0))
    error = mean(((found - wanted) ** 2).sum(axis=0))
    scores = mean(maps.foreground.ravel()[inside]) * np.clip(agreement, 0, 1)
    classes = np.stack([mean(own.ravel()[inside]) for own in maps.classes]).argmax(axis=0)
    kept = np.flatnonzero(error <= params.max_flow_error)
    kept = kept[np.argsort(-scores[kept], kind="stable")][: params.limit]
    boxes, masks = _boxes_and_masks(labels, kept, maps.foreground, params.mask_size)
    boxes = np.minimum(boxes * maps.stride, [width, height, width, height]).astype(np.float32)
    return Detections(height, width, boxes, scores[kept].astype(np.float32), classes[kept], masks)


def _boxes_and_masks(
    labels: np.ndarray, kept: np.ndarray, foreground: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of the cells with the labels ``kept + 1``: boxes float32 ``(N, 4)`` and probabilities on their grids."""
    places = ndimage.find_objects(labels)
    boxes = np.zeros((len(kept), 4), dtype=np.float32)
    masks = np.zeros((len(kept), size, size), dtype=np.float32)
    for row, i in enumerate(kept.tolist()):
        rows, columns = places[i]
        boxes[row] = columns.start, rows.start, columns.stop, rows.stop
        own = np.where(labels[places[i]] == i + 1, foreground[places[i]], 0)
        masks[row] = cv2.resize(own, (size, size), interpolation=cv2.INTER_LINEAR)
    return boxes, masks
