"""The scale at which a network is to see an image: cells of 10 and of 120 pixels are not found at the same one.

At scale 1 the network sees an image at its usual size, at 2 every cell twice as large. Detections always come back in
the coordinates of the image. The scale follows from the diameter of the cells where that is known; otherwise the
network looks at several scales, and the one at which it finds most is kept, alone or with those next to it: what is
seen at two or three scales is more certain, and small and large cells of one image need not be best seen at the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess

# How many times larger or smaller cells can be made; beyond it there is little left to see, or too much to compute.
MAGNIFICATION = (0.1, 10.0)
# What a cell counts when scales are compared: its score times its area to this power. With 0, cells would be counted,
# and fragments of cells preferred to cells; with 1, areas, and heaps of cells to cells.
AREA_POWER = 0.8
# Only cells with at least this score count then: of the unsure ones there are more the larger an image is made.
SURE = 0.5
# And of at least this share of a doubtful area: specks of dirt are many, and each size of the image shows others.
PLAIN = 0.4


def scale_for(diameter: float, model_diameter: float) -> float:
    """The scale at which cells of an image look as large to the network as those that it was trained on.

    Args:
        diameter: of the image's cells, in its pixels; that of the disc with the same area.
        model_diameter: of the cells that the network was trained on, in pixels of the training images.

    Raises:
        CellSegError: a value is no positive number, or the ratio of the diameters is not in :data:`MAGNIFICATION`.

    Example:
        >>> scale_for(diameter=40, model_diameter=20)
        0.5
    """
    for name, value in (("diameter", diameter), ("model_diameter", model_diameter)):
        if not (math.isfinite(value) and value > 0):
            raise CellSegError(f"{name} is {value}; it must be a number of pixels above 0")
    ratio = model_diameter / diameter
    low, high = MAGNIFICATION
    if not low <= ratio <= high:
        raise CellSegError(
            f"cells of {diameter:g} pixels would have to be resized by {ratio:.3g} to look like those of "
            f"{model_diameter:g} pixels that the network knows; between {low:g} and {high:g} is possible"
        )
    return ratio


def evidence(detections: Detections, params: PostprocessParams) -> float:
    """How much a network finds: the sum over its sure and plain cells of score × area ** :data:`AREA_POWER`.

    Those are cells of at least :data:`SURE`, and of at least :data:`PLAIN` of the area below which they are doubtful.
    """
    thresholds = [max(threshold, SURE) for threshold in params.score_thresholds]
    least = np.maximum(params.min_areas, np.ceil(PLAIN * np.array(params.doubtful_areas)).astype(int))  # by class
    params = replace(params, score_thresholds=thresholds, min_areas=least, doubtful_areas=(0,))
    cells = postprocess(detections, params)
    areas = np.array([crop.area for crop in cells.crops], dtype=np.float64)
    return float((cells.scores * areas**AREA_POWER).sum())


def choose_scale(
    detect: Callable[[np.ndarray, float], Detections],
    images: Sequence[np.ndarray],
    scales: Sequence[float],
    params: PostprocessParams,
) -> float:
    """The scale with the most :func:`evidence` over some parts of an image; the one closest to 1 where there is none.

    Args:
        detect: called with a part and a scale; its detections are in the coordinates of the part.
        images: parts of one image, grey ``(H, W)``, which are looked at until one shows a cell.
        scales: to choose from.
        params: how detections become cells.
    """
    for image in images:
        found = {scale: evidence(detect(image, scale), params) for scale in scales}
        if max(found.values()) > 0:
            return max(found, key=found.__getitem__)
    return min(scales, key=lambda scale: abs(math.log(scale)))


def with_neighbors(scale: float, scales: Sequence[float], neighbors: int) -> list[float]:
    """A scale, and up to ``neighbors`` of ``scales`` next below and next above it.

    Example:
        >>> with_neighbors(0.5, [1.0, 0.35, 0.5, 0.75], 1)
        [0.5, 0.35, 0.75]
    """
    ordered = sorted(scales)
    at = ordered.index(scale)
    return [scale, *ordered[max(0, at - neighbors) : at], *ordered[at + 1 : at + 1 + neighbors]]
