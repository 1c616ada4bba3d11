"""Training targets of a dense branch: per-pixel maps of an image's cells."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.masks.flows import flow_field
from cellseg_d2.masks.layers import LabelLayers


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """Maps of ``h`` × ``w`` pixels, each of which stands for a block of ``stride`` × ``stride`` of the image's.

    Attributes:
        foreground: float32 ``(h, w)``, the share of the block that is in any cell; -1 where nothing is learnt.
        boundary: float32 ``(h, w)``, 1 where a cell is next to background or to another cell.
        flow: float32 ``(2, h, w)``, see :func:`cellseg_d2.masks.flows.flow_field`; 0 outside of cells.
        classes: int64 ``(h, w)``, the cell's class, -1 outside of cells.
    """

    foreground: np.ndarray
    boundary: np.ndarray
    flow: np.ndarray
    classes: np.ndarray


def dense_targets(
    masks: LabelLayers, classes: np.ndarray, stride: int = 1, ignore: np.ndarray | None = None
) -> DenseTargets:
    """The maps of an image's cells.

    Pixels and blocks that several cells claim belong to the smallest of them, since the larger cell loses a smaller
    share. A cell that is cut into parts by this gets a centre for each part.

    Args:
        masks: ``N`` cells in an image of ``H`` × ``W`` pixels.
        classes: int64 ``(N,)``.
        stride: side of a block in pixels; blocks at the lower and right border are filled up with background.
        ignore: bool ``(H, W)``, where nobody annotated: blocks without a cell that have a pixel of it teach nothing.

    Returns:
        Maps of ⌈H / stride⌉ × ⌈W / stride⌉.
    """
    blocks = _blocks(smallest_on_top(masks), stride)
    coarse = blocks.max(axis=(1, 3))  # the higher number is the smaller cell's
    square = np.ones((3, 3), np.uint8)
    # OpenCV compares whole numbers of at most 16 bits; float32 holds those of any image's cells.
    exact = coarse.astype(np.float32)
    edge = cv2.dilate(exact, square) != cv2.erode(exact, square)
    class_of = np.concatenate([[-1], np.asarray(classes, dtype=np.int64)[by_size(masks)]])
    foreground = (blocks > 0).mean(axis=(1, 3), dtype=np.float32)
    if ignore is not None:
        foreground[(coarse == 0) & _blocks(ignore, stride).any(axis=(1, 3))] = -1
    return DenseTargets(
        foreground=foreground,
        boundary=(edge & (coarse > 0)).astype(np.float32),
        flow=flow_field(coarse),
        classes=class_of[coarse],
    )


def _blocks(image: np.ndarray, stride: int) -> np.ndarray:
    """An image ``(H, W)``, continued by 0, as blocks ``(h, stride, w, stride)``."""
    height, width = (-(-side // stride) for side in image.shape)
    whole = np.zeros((height * stride, width * stride), dtype=image.dtype)
    whole[: image.shape[0], : image.shape[1]] = image
    return whole.reshape(height, stride, width, stride)


def by_size(masks: LabelLayers) -> np.ndarray:
    """Indices of the cells, the largest first, int64 ``(N,)``."""
    return np.argsort(-masks.areas, kind="stable")


def smallest_on_top(masks: LabelLayers) -> np.ndarray:
    """One label image, int32 ``(H, W)``: ``i + 1`` is the cell ``by_size(masks)[i]``; the smaller one has the pixel."""
    rank = np.empty(len(masks), dtype=np.int32)
    rank[by_size(masks)] = np.arange(1, len(masks) + 1)
    labels = np.zeros((masks.height, masks.width), dtype=np.int32)
    for index, layer in enumerate(masks.layers):
        own = masks.layer_of_cell == index
        number = np.zeros(int(layer.max()) + 1, dtype=np.int32)
        number[masks.label_of_cell[own]] = rank[own]
        np.maximum(labels, number[layer], out=labels)
    return labels
