"""Fields that point from every pixel of a cell toward its centre, after Cellpose.

Heat enters at the centre of a cell, spreads inside it and is lost at its outline; the field is the direction in which
the heat rises (Stringer, Wang, Michaelos & Pachitariu, "Cellpose: a generalist algorithm for cellular segmentation",
Nature Methods 18, 2021). A path along it stays inside the cell, around corners and along branches, and ends at one
place. Unlike the offset to the centre, the field can be learnt from the near surroundings of a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage
from skimage import measure

# A centre is at least this share as far inside of its cell as the pixel that is furthest inside.
_DEEP = 0.75
# Steps of diffusion for a pixel of a cell's longer side. Where the heat has not reached every pixel by then, as in a
# spiral, the number is doubled.
_STEPS = 2
# Cells larger than this need the range of float64: heat falls by a factor for every pixel of a thin process.
_LARGE = 64
_KERNEL = np.full(3, 1 / 3)
# Pixels that are worked on at once, which bounds the memory.
_ATLAS_PIXELS = 2**21


def flow_field(labels: np.ndarray) -> np.ndarray:
    """Unit vectors toward the centre of each cell.

    The centre is the pixel nearest to the centroid among those that are about as far inside the cell as any: the cell
    body of a cell with branches, the middle of a rod. Each 8-connected part of a label has its own centre. The field of
    a mirrored or turned image is the mirrored or turned field.

    Args:
        labels: integers ``(H, W)``, 0 for background.

    Returns:
        float32 ``(2, H, W)``, x and y in pixels; of length 1 inside of cells except where the heat has no direction, as
        in a centre, and 0 outside.

    Example:
        >>> flow_field(np.array([[0, 1, 1, 1, 0]]))[0].tolist()
        [[0.0, 1.0, 0.0, -1.0, 0.0]]
    """
    field = np.zeros((2, labels.size), dtype=np.float32)
    parts = measure.label(labels, background=0, connectivity=2)
    boxes = [(number, *box) for number, box in enumerate(ndimage.find_objects(parts), start=1)]
    sides = np.array([max(s.stop - s.start for s in box[1:]) for box in boxes], dtype=np.int64)
    # Parts of like size are done together: large ones take more steps.
    group = np.ceil(2 * np.log2(sides)).astype(np.int64)
    for number in np.unique(group):
        side = 2 ** (number / 2)
        own, most = np.flatnonzero(group == number), max(1, int(_ATLAS_PIXELS / side**2))
        for start in range(0, len(own), most):
            atlas = _Atlas.of(parts, [boxes[i] for i in own[start : start + most]])
            field[:, atlas.pixels] = _directions(_heat(atlas, side), atlas)
    return field.reshape(2, *labels.shape)


@dataclass(frozen=True, eq=False)
class _Atlas:
    """Parts of cells beside each other, with a gap between them, so that all are worked on at once.

    Attributes:
        mask: uint8 ``(h + 2, n · (w + 1) + 1)``.
        places: the mask's pixels, flat positions in it, int64 ``(P,)``.
        part: which of the ``n`` each is of, int64 ``(P,)``.
        pixels: where they come from, flat positions in the image, int64 ``(P,)``.
    """

    mask: np.ndarray
    places: np.ndarray
    part: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, boxes: list[tuple[int, slice, slice]]) -> _Atlas:
        """Of some labels, each with its rows and columns."""
        number = np.array([label for label, _, _ in boxes])
        top, bottom, left, right = (
            np.array([getattr(box[axis], end) for box in boxes]) for axis in (1, 2) for end in ("start", "stop")
        )
        height, width = (bottom - top).max(), (right - left).max()
        rows, columns = top[:, None] + np.arange(height), left[:, None] + np.arange(width)
        inside = (rows < bottom[:, None])[:, :, None] & (columns < right[:, None])[:, None]
        rows, columns = np.minimum(rows, labels.shape[0] - 1), np.minimum(columns, labels.shape[1] - 1)
        crops = (labels[rows[:, :, None], columns[:, None]] == number[:, None, None]) & inside
        part, y, x = np.nonzero(crops)
        mask = np.zeros((height + 2, len(boxes) * (width + 1) + 1), dtype=np.uint8)
        places = (y + 1) * mask.shape[1] + part * (width + 1) + x + 1
        mask.ravel()[places] = 1
        return cls(mask, places, part, (top[part] + y) * labels.shape[1] + left[part] + x)

    def centres(self) -> np.ndarray:
        """Places of the centres; several of a part where they are equally good."""
        part = self.part
        depth = cv2.distanceTransform(self.mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).ravel()[self.places]
        deepest = np.zeros(part.max() + 1, dtype=depth.dtype)
        np.maximum.at(deepest, part, depth)
        y, x = np.divmod(self.places, self.mask.shape[1])
        area = np.bincount(part)
        distance = sum((axis - (np.bincount(part, axis) / area)[part]) ** 2 for axis in (y, x))
        distance[depth < _DEEP * deepest[part]] = np.inf
        nearest = np.full(len(area), np.inf)
        np.minimum.at(nearest, part, distance)
        return self.places[distance <= nearest[part] + 1e-6]


def _heat(atlas: _Atlas, side: float) -> np.ndarray:
    """Heat ``mask.shape`` after some steps, in each of which every pixel takes the mean of its 3 × 3 neighbours'.

    Args:
        atlas: cells of like size.
        side: that none of them exceeds, in pixels.
    """
    mask, centres = atlas.mask.astype(np.float32 if side <= _LARGE else np.float64), atlas.centres()
    heat, spread = np.zeros_like(mask), np.zeros_like(mask)
    left = len(atlas.places)  # pixels; no way is longer
    while left > 0:
        for _ in range(round(_STEPS * side)):
            heat.ravel()[centres] += 1
            cv2.sepFilter2D(heat, -1, _KERNEL, _KERNEL, dst=spread, borderType=cv2.BORDER_CONSTANT)
            np.multiply(spread, mask, out=heat)
        left = 0 if heat.ravel()[atlas.places].all() else left - round(_STEPS * side)
    return heat


def _directions(heat: np.ndarray, atlas: _Atlas) -> np.ndarray:
    """Where the heat's logarithm rises most, unit vectors float32 ``(2, P)``."""
    heat, width = np.log1p(heat).ravel(), heat.shape[1]
    rise = np.stack([heat[atlas.places + step] - heat[atlas.places - step] for step in (1, width)])
    length = np.sqrt((rise**2).sum(axis=0))
    return np.divide(rise, length, out=np.zeros_like(rise), where=length > 0).astype(np.float32)
