"""Multiply scores of detections by their plausibility."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cellseg_d2.detections.detections import Detections
from cellseg_d2.shape_space.space import ShapeSpace

# Nothing is impossible: a score keeps its order among others, however strange the shape.
_LEAST = 1e-12


def weigh(detections: Detections, space: ShapeSpace, exponent: float) -> Detections:
    """Multiply each score by the plausibility of the mask at a probability of 0.5, raised to ``exponent``.

    An exponent of 0 leaves the scores as they are. A mask without a pixel has the least plausibility.
    """
    masks = [crop.tight().mask for crop in detections.crops(0.5)]
    inside = np.array([bool(mask.size) for mask in masks], dtype=bool)
    factors = np.full(len(detections), _LEAST)
    factors[inside] = space.plausibilities([mask for mask in masks if mask.size])
    factors = np.clip(factors, _LEAST, 1) ** exponent
    return replace(detections, scores=(detections.scores * factors).astype(np.float32))
