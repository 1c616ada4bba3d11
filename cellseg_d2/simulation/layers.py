"""Layers of cells: within one none overlap, between them cells lie over each other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from cellseg_d2.masks.components import largest_component
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import clip_crop
from cellseg_d2.simulation.matter import Build
from cellseg_d2.simulation.noise import smooth_noise
from cellseg_d2.simulation.partition import Bend

_TRIALS = 12
_TRIMMED = 0.25  # largest share of a cell that it may lose where it is pushed against others


@dataclass(frozen=True, eq=False)
class Layer:
    """Cells that do not overlap.

    Attributes:
        labels: int32 ``(H, W)``, 0 where no cell is.
        build: build of its cells.
        bend: the map that bent them, None where there is none.
    """

    labels: np.ndarray
    build: Build
    bend: Bend | None = None


def stack(
    rng: np.random.Generator,
    shape: tuple[int, int],
    masks: list[np.ndarray],
    *,
    overlap: float,
    most: int,
    touching: float = 0.0,
) -> list[np.ndarray]:
    """Lay cells at random places, side by side or over each other.

    Those for which no place is found within some trials are left out.

    Args:
        rng: source of randomness.
        shape: height and width of the label images.
        masks: bool, tight, one component each.
        overlap: largest share of a cell that may lie over others.
        most: number of label images.
        touching: share of the cells that are laid beside another.

    Returns:
        Up to ``most`` label images, int32 ``shape``, in which mask k has the label k + 1.
    """
    layers = [np.zeros(shape, dtype=np.int32)]
    field, patchy = smooth_noise(rng, shape, 0.25 * shape[0]), rng.uniform(0, 0.8)
    placed: list[tuple[float, float, float]] = []  # middle and radius
    for label, mask in enumerate(masks, start=1):
        (h, w), area = mask.shape, np.count_nonzero(mask)
        for _ in range(_TRIALS):
            y, x = rng.random(2) * shape
            if placed and rng.random() < touching:
                y, x, radius = placed[rng.integers(len(placed))]
                way, angle = (radius + np.sqrt(area / np.pi)) * rng.uniform(0.85, 1.05), rng.uniform(0, 2 * np.pi)
                y, x = y + way * np.sin(angle), x + way * np.cos(angle)
            inside = clip_crop(MaskCrop(int(y) - h // 2, int(x) - w // 2, mask), *shape)
            window, part = inside.slices, inside.mask
            if not part.any() or rng.random() > np.exp(-patchy * max(1 - float(field[window].mean()), 0)):
                continue
            covered = [int(np.count_nonzero(part & (layer[window] > 0))) for layer in layers]
            lost = sum(covered)
            if 0 < lost < _TRIMMED * area and rng.random() < 0.7:
                # Pushed against the others rather than laid over them.
                part = part & ~np.any([layer[window] > 0 for layer in layers], axis=0)
                part = largest_component(part)
                covered[0] = 0
            elif lost > overlap * area or (all(covered) and len(layers) == most):
                continue
            elif all(covered):
                layers.append(np.zeros(shape, dtype=np.int32))
                covered.append(0)
            layers[covered.index(0)][window][part] = label
            placed.append((y, x, np.sqrt(area / np.pi)))
            break
    return layers


def lift(rng: np.random.Generator, labels: np.ndarray, share: float, reach: float) -> np.ndarray:
    """Take some cells out of ``labels`` and return them as a layer above, grown over the edges of their neighbours.

    Args:
        rng: source of randomness.
        labels: changed in place.
        share: share of the cells that is taken.
        reach: by how much they grow, in pixels.
    """
    above = np.zeros_like(labels)
    size = 2 * max(round(reach), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        if window is None or rng.random() >= share:
            continue
        wide = tuple(slice(max(side.start - size, 0), side.stop + size) for side in window)
        own = labels[wide] == number
        labels[wide][own] = 0
        grown = cv2.dilate(own.astype(np.uint8), kernel) > 0
        above[wide][grown & (above[wide] == 0)] = number
    return above
