"""From the maps of a dense branch to the detections of an image."""

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
    """What a dense branch says about one image, on a grid of ``h`` × ``w``.

    Attributes:
        stride: pixels of the image a side of a pixel of the maps.
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
        threshold: of the foreground's probability. Lower than that of a mask, so that the latter can be chosen later.
        min_pixels: of the maps, that a cell needs.
        max_flow_error: cells are dropped whose mean squared difference between the field and the one that their masks
            would have is above this (Cellpose's check; 0.4 there).
        mask_size: cells a side of the grids of masks.
        limit: at most so many detections, the best ones.
    """

    threshold: float = 0.4
    min_pixels: int = 8
    max_flow_error: float = 0.5
    mask_size: int = 56
    limit: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise CellSegError(f"MODEL.DENSE.THRESHOLD is {self.threshold}; it must be above 0 and below 1")
        if self.mask_size < 1:
            raise CellSegError(f"MODEL.DENSE.MASK_SIZE is {self.mask_size}; it must be at least 1")

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> DenseParams:
        """``MODEL.DENSE`` of a configuration, with its limit of detections."""
        dense = cfg["MODEL"]["DENSE"]
        own = {name: dense[name.upper()] for name in ("threshold", "min_pixels", "max_flow_error", "mask_size")}
        return cls(**own, limit=cfg["TEST"]["DETECTIONS_PER_IMAGE"])


def maps_to_detections(maps: DenseMaps, height: int, width: int, params: DenseParams | None = None) -> Detections:
    """The cells of an image, each with its mask's probabilities.

    A cell's score is the mean probability of its pixels, times the mean agreement of the field with the one that its
    mask would have: 1 is the same direction everywhere, 0 none.

    Args:
        maps: of the image alone, without padding.
        height, width: of the image in pixels.
        params: by default :class:`DenseParams`'s own.
    """
    params = params or DenseParams()
    labels = follow_flows(maps.flow, maps.foreground >= params.threshold, params.min_pixels)
    boxes = ndimage.find_objects(labels)
    count = len(boxes)
    size = params.mask_size
    inside = np.flatnonzero(labels)
    cell = labels.ravel()[inside] - 1
    pixels = np.maximum(np.bincount(cell, minlength=count), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(cell, values, minlength=count) / pixels

    found, wanted = (flow.reshape(2, -1)[:, inside] for flow in (maps.flow, flow_field(labels)))
    length = np.maximum(np.sqrt((found**2).sum(axis=0)), 1e-6)
    agreement = mean((found * wanted).sum(axis=0) / length)
    error = mean(((found - wanted) ** 2).sum(axis=0))
    scores = mean(maps.foreground.ravel()[inside]) * np.clip(agreement, 0, 1)
    classes = np.stack([mean(own.ravel()[inside]) for own in maps.classes]).argmax(axis=0)

    kept = np.flatnonzero(error <= params.max_flow_error)
    kept = kept[np.argsort(-scores[kept], kind="stable")][: params.limit]
    masks = np.zeros((len(kept), size, size), dtype=np.float32)
    places = np.zeros((len(kept), 4), dtype=np.float32)
    for row, i in enumerate(kept.tolist()):
        rows, columns = boxes[i]
        own = np.where(labels[boxes[i]] == i + 1, maps.foreground[boxes[i]], 0)
        masks[row] = cv2.resize(own, (size, size), interpolation=cv2.INTER_LINEAR)
        places[row] = columns.start, rows.start, columns.stop, rows.stop
    places = np.minimum(places * maps.stride, [width, height, width, height]).astype(np.float32)
    return Detections(height, width, places, scores[kept].astype(np.float32), classes[kept], masks)
