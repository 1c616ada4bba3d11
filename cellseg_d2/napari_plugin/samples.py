"""Sample data: simulated images with the masks that they were drawn from, which anybody may have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import label_image, resolve_overlaps
from cellseg_d2.simulation.culture import simulate_culture
from cellseg_d2.simulation.scene import simulate_image

# Layers as napari takes them from plugins: data, arguments of the layer, its kind.
Layers = list[tuple[np.ndarray, dict, str]]
_SEED = 5


def neurons() -> Layers:
    """A phase-contrast image of cortical neurons, and their masks as a labels layer."""
    return _layers("neurons", *simulate_image("cort", np.random.default_rng(_SEED), 384, 512))


def epithelium() -> Layers:
    """A sheet of cells that touch, and their masks."""
    return _layers("epithelium", *simulate_culture("epithelium", np.random.default_rng(_SEED), 384, 512))


def _layers(name: str, image: np.ndarray, crops: Sequence[MaskCrop]) -> Layers:
    height, width = image.shape
    labels = label_image(resolve_overlaps(crops, height, width, policy="smaller"), height, width)
    return [(image, {"name": name}, "image"), (labels, {"name": f"{name}, true cells", "visible": False}, "labels")]
