"""labelme: a JSON an image, ``a.json`` for ``a.png``, with polygons, rectangles, circles and painted masks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import (
    DrawnImage,
    Shape,
    ellipse,
    name_of,
    open_drawn_files,
    rectangle,
    ring_of,
    size_of,
)
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.crop import MaskCrop


@DATASET_READERS.register("labelme", metavar="PATH")
def open_labelme(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """labelme: the folder of its JSON files, or one of them"""
    return open_drawn_files(path, (".json",), read_labelme, options)


def read_labelme(path: str | Path) -> DrawnImage:
    """Read one file; shapes of one name with the same ``group_id`` are parts of one cell.

    Raises:
        CellSegError: it is not a file of labelme.
    """
    content = read_json(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("shapes"), list):
        raise CellSegError(f"{path} is not a file of labelme: it has no list of 'shapes'")
    name = name_of(content.get("imagePath")) or Path(path).stem
    shapes = [_shape(entry, row) for row, entry in enumerate(content["shapes"], start=1)]
    return DrawnImage(name, shapes, size_of(content.get("imageHeight"), content.get("imageWidth")))


def _shape(entry: Any, row: int) -> Shape:
    if not isinstance(entry, Mapping):
        return Shape(None, row, problem="it is not an object")
    group = entry.get("group_id")
    shape = Shape(name_of(entry.get("label")), row, group=group if isinstance(group, int | str) else None)
    form, ring = entry.get("shape_type", "polygon"), ring_of(entry.get("points"))
    if form == "polygon":
        shape.parts = [[ring]]
    elif form == "rectangle" and len(ring) == 2:
        shape.parts = [[rectangle(*ring.ravel().tolist())]]
    elif form in ("rectangle", "oriented_rectangle", "rotation") and len(ring) == 4:
        shape.parts = [[ring]]
    elif form == "circle" and len(ring) == 2:
        (x, y), radius = ring[0].tolist(), float(np.hypot(*(ring[1] - ring[0])))
        shape.parts = [[ellipse(x, y, radius, radius)]]
    elif form == "mask" and len(ring) == 2:
        mask = _painted(entry.get("mask"), ring[0])
        shape.masks, shape.problem = ([], "its mask is not a PNG in base64") if mask is None else ([mask], None)
    else:
        shape.problem = f"it is a {str(form)[:20]} of {len(ring)} points, which has no area"
    return shape


def _painted(text: object, corner: np.ndarray) -> MaskCrop | None:
    """A mask as labelme keeps it: a black and white PNG of its box, whose first corner is ``corner``."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(text), validate=True)), formats=["PNG"]) as image:
            mask = np.asarray(image.convert("L")) > 0
        left, top = (round(float(value)) for value in corner)
    except (ValueError, OSError, OverflowError, SyntaxError, Image.DecompressionBombError):
        return None
    return MaskCrop(top, left, mask)
