"""Cells of any size: a network knows cells as large as those that it was trained on, so the image is resized to match.

A cell's diameter is that of the disc with the same area. The network sees the image at a *scale*: 1 is the size at
which it usually looks, 2 shows every cell twice as large. Detections always come back in the coordinates of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.postprocess.steps import Cells

# How many times larger or smaller cells can be made; beyond it there is little left to see, or too much to compute.
MAGNIFICATION = (0.1, 10.0)


@dataclass(frozen=True, eq=False)
class SizedDetections:
    """Detections with what is known about the size of the cells.

    Attributes:
        detections: in coordinates of the image.
        diameter: median of the confident cells, in pixels of the image; None where there are none.
        scale: at which the network looked.
    """

    detections: Detections
    diameter: float | None
    scale: float


def estimate_diameter(found: Detections | Cells, min_score: float = 0.5) -> float:
    """The median diameter of the confident cells of an image, in its pixels.

    Cells at the border of the image, of which only a part is seen, do not count unless there are no others.

    Args:
        found: detections, whose masks are taken at a probability of ½, or cells.
        min_score: a cell is confident from this score on.

    Raises:
        CellSegError: there is no confident cell.

    Example:
        >>> from cellseg_d2.masks.crop import MaskCrop
        >>> disc = MaskCrop(5, 5, np.hypot(*np.ogrid[-9.5:10:1, -9.5:10:1]) < 10)
        >>> round(estimate_diameter(Cells(30, 30, [disc], np.array([0.9]), np.array([0]))), 1)
        20.1
    """
    diameters = _confident_diameters(found, min_score)
    if len(diameters) == 0:
        raise CellSegError(
            f"no cell was found with a score of {min_score:g} or more, from which the cells' size could be told: give "
            "their diameter in pixels"
        )
    return float(np.median(diameters))


def _confident_diameters(found: Detections | Cells, min_score: float) -> np.ndarray:
    confident = np.flatnonzero(found.scores >= min_score)
    if isinstance(found, Detections):
        crops = [crop.tight() for crop in found.select(confident).crops()]
    else:
        crops = [found.crops[i].tight() for i in confident.tolist()]
    crops = [crop for crop in crops if crop.mask.size]
    areas = np.array([crop.area for crop in crops], dtype=np.float64)
    boxes = np.array([crop.box for crop in crops]).reshape(-1, 4)
    inside = ((boxes[:, :2] > 0) & (boxes[:, 2:] < [found.width, found.height])).all(axis=1)
    return np.sqrt(4 / math.pi * (areas[inside] if inside.any() else areas))


def scale_for(diameter: float, model_diameter: float, resizing: float = 1.0) -> float:
    """The scale at which cells of an image look as large to the network as those that it was trained on.

    Args:
        diameter: of the image's cells, in its pixels.
        model_diameter: of the cells that the network was trained on, in pixels of the training images.
        resizing: how much more the network's usual change of size enlarges this image than it enlarged the training
            images; 1 where they are equally large or no size is changed. Detectron2 resizes the shorter side to a fixed
            length, which makes it the shorter side of the training images divided by that of this image, or tile.

    Raises:
        CellSegError: a value is no positive number, or the ratio of the diameters is not in :data:`MAGNIFICATION`.

    Example:
        >>> scale_for(diameter=40, model_diameter=20)
        0.5
        >>> scale_for(diameter=20, model_diameter=20, resizing=520 / 1040)  # the usual input shows cells half as large
        2.0
    """
    for name, value in (("diameter", diameter), ("model_diameter", model_diameter), ("resizing", resizing)):
        if not (math.isfinite(value) and value > 0):
            raise CellSegError(f"{name} is {value}; it must be a number of pixels above 0")
    ratio = model_diameter / diameter
    low, high = MAGNIFICATION
    if not low <= ratio <= high:
        raise CellSegError(
            f"cells of {diameter:g} pixels would have to be resized by {ratio:.3g} to look like those of "
            f"{model_diameter:g} pixels that the network knows; between {low:g} and {high:g} is possible"
        )
    return ratio / resizing


def detect_at_diameter(
    detect: Callable[[np.ndarray, float], Detections],
    image: np.ndarray,
    diameter: float,
    model_diameter: float,
    resizing: float = 1.0,
) -> Detections:
    """What is detected when the cells look as large as the network knows them.

    Args:
        detect: called with the image and a scale; its detections are in the coordinates of the image given, whatever
            the scale at which it looks.
        image: grey ``(H, W)``.
        diameter, model_diameter, resizing: see :func:`scale_for`.
    """
    return detect(image, scale_for(diameter, model_diameter, resizing))


def detect_any_size(
    detect: Callable[[np.ndarray, float], Detections],
    image: np.ndarray,
    model_diameter: float,
    *,
    resizing: float = 1.0,
    tolerance: float = 1.5,
    min_score: float = 0.5,
) -> SizedDetections:
    """Look once at the image as if its cells had the usual size, and again at a better scale if they do not.

    The second look replaces the first unless it finds no confident cell. A network sees cells of a wrong size with a
    bias towards the right one, so what it says at first is a step in the right direction, and no more: where cells are
    several times too large or too small, the diameter is better given.

    Args:
        detect, image, model_diameter, resizing: see :func:`detect_at_diameter`.
        tolerance: factor between the first scale and the better one beyond which a second look is taken, at least 1.
        min_score: see :func:`estimate_diameter`.

    Raises:
        CellSegError: a value is out of its range.
    """
    if not tolerance >= 1:
        raise CellSegError(f"the tolerance of the cells' size is {tolerance}; it must be a factor of at least 1")
    usual = scale_for(model_diameter, model_diameter, resizing)
    first = _sized(detect(image, usual), usual, min_score)
    if first.diameter is None:
        return first
    ratio = float(np.clip(model_diameter / first.diameter, *MAGNIFICATION))
    if max(ratio, 1 / ratio) <= tolerance:
        return first
    second = _sized(detect(image, usual * ratio), usual * ratio, min_score)
    return first if second.diameter is None else second


def _sized(detections: Detections, scale: float, min_score: float) -> SizedDetections:
    diameters = _confident_diameters(detections, min_score)
    return SizedDetections(detections, float(np.median(diameters)) if len(diameters) else None, scale)
