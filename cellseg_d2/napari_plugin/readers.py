"""COCO JSON as layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.masks.overlaps import label_image, resolve_overlaps

# More layers than that are of no use in one viewer.
_MOST = 50


def coco_reader(path: str | list[str]) -> Callable[[str], list] | None:
    """What reads a COCO JSON, as napari asks for it; None for any other JSON."""
    if not isinstance(path, str):
        return None
    try:
        read_coco(path)
    except (CellSegError, OSError):
        return None
    return read_layers


def read_layers(path: str) -> list[tuple[np.ndarray, dict, str]]:
    """The images of a COCO JSON that are there, and their cells as labels; contested pixels are the smaller cell's.

    Raises:
        CellSegError: it has many images, or a mask is malformed.
    """
    file = read_coco(path)
    if len(file.images) > _MOST:
        raise CellSegError(f"{path} has {len(file.images)} images, of which napari can show {_MOST} side by side")
    places = file.image_paths() if file.image_root is not None else {}
    layers: list[tuple[np.ndarray, dict, str]] = []
    for record in load_coco(path):
        crops = [cell.crop for cell in record.cells]
        crops = resolve_overlaps(crops, record.height, record.width, policy="smaller")
        place = places.get(record.number or 0, Path())
        if place.is_file():
            layers.append((read_image(place), {"name": record.id}, "image"))
        labels = label_image(crops, record.height, record.width)
        layers.append((labels, {"name": f"{record.id}, cells"}, "labels"))
    return layers
