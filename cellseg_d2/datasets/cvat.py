"""CVAT: its XML "CVAT for images 1.1" with polygons, masks, boxes and ellipses."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import DrawnImage, Shape, ellipse, name_of, open_drawn, rectangle, ring_of, size_of
from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.rle import MAX_PIXELS


@DATASET_READERS.register("cvat", metavar="FILE")
def open_cvat(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """CVAT: annotations.xml as exported 'CVAT for images'"""
    return open_drawn(path, read_cvat(path), options)


def read_cvat(path: str | Path) -> list[DrawnImage]:
    """Read an export; shapes of one label with the same ``group_id`` are parts of one cell.

    Raises:
        CellSegError: it is not such a XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise CellSegError(f"{path} does not exist") from None
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise CellSegError(f"{path} cannot be read as XML: {one_line(error)}") from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise CellSegError(f"{path} is not an export 'CVAT for images 1.1': export the task again in this format")
    images = []
    for node in root.findall("image"):
        name = name_of(node.get("name"))
        if name is None:
            raise CellSegError(f"{path} has an image without a name")
        shapes = [_shape(child, row) for row, child in enumerate(node, start=1) if child.tag != "tag"]
        images.append(DrawnImage(name, shapes, size_of(node.get("height"), node.get("width"))))
    return images


def _shape(node: ElementTree.Element, row: int) -> Shape:
    group = node.get("group_id")
    shape = Shape(name_of(node.get("label")), row, group=None if group in (None, "", "0") else group)
    try:
        if node.tag == "polygon":
            points = [pair.split(",") for pair in node.get("points", "").split(";")]
            shape.parts = [[ring_of([[float(value) for value in pair] for pair in points])]]
        elif node.tag == "box" and not float(node.get("rotation", 0)):
            shape.parts = [[rectangle(*(float(node.get(key, "nan")) for key in ("xtl", "ytl", "xbr", "ybr")))]]
        elif node.tag == "ellipse":
            x, y, radius_x, radius_y = (float(node.get(key, "nan")) for key in ("cx", "cy", "rx", "ry"))
            shape.parts = [[ellipse(x, y, radius_x, radius_y, np.radians(float(node.get("rotation", 0))))]]
        elif node.tag == "mask":
            shape.masks = [_mask(node)]
        else:
            shape.problem = f"it is of the kind {node.tag[:20]!r}, which is not an outline of a cell"
    except (TypeError, ValueError, OverflowError):
        shape.problem = f"its {node.tag} cannot be read"
    return shape


def _mask(node: ElementTree.Element) -> MaskCrop:
    """Run lengths of a box, row by row, in turn outside and inside."""
    left, top, width, height = (int(float(node.get(key, "nan"))) for key in ("left", "top", "width", "height"))
    counts = np.array([int(count) for count in node.get("rle", "").split(",")], dtype=np.int64)
    area = width * height
    if not 0 < area <= MAX_PIXELS or (counts < 0).any() or (counts > area).any() or counts.sum() != area:
        raise ValueError("run lengths of another size")
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return MaskCrop(top, left, inside.reshape(height, width))
