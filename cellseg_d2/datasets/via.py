"""VGG Image Annotator (VIA 1 and 2): a JSON of all images with polygons, rectangles, circles and ellipses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import DrawnImage, Shape, ellipse, name_of, open_drawn, rectangle, ring_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json


@DATASET_READERS.register("via", metavar="FILE")
def open_via(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """VGG Image Annotator: its project, or its annotations, as JSON"""
    return open_drawn(path, read_via(path), options)


def read_via(path: str | Path) -> list[DrawnImage]:
    """Read a project or exported annotations.

    The class of a region is its one attribute with a name for a value, or, of several, that which is called ``type``,
    ``class``, ``label`` or ``name``.

    Raises:
        CellSegError: it is not such a JSON.
    """
    content = read_json(path)
    if isinstance(content, Mapping) and isinstance(content.get("_via_img_metadata"), Mapping):
        content = content["_via_img_metadata"]
    if not isinstance(content, Mapping) or not content or not all(_is_image(entry) for entry in content.values()):
        raise CellSegError(f"{path} is not a JSON of VGG Image Annotator 1 or 2: it needs 'filename' and 'regions'")
    images = []
    for entry in content.values():
        regions = entry["regions"]
        regions = list(regions.values()) if isinstance(regions, Mapping) else regions
        shapes = [_shape(region, row) for row, region in enumerate(regions, start=1)]
        images.append(DrawnImage(entry["filename"], shapes))
    return images


def _is_image(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or name_of(entry.get("filename")) is None:
        return False
    return isinstance(entry.get("regions"), list | Mapping)


def _shape(region: Any, row: int) -> Shape:
    drawn = region.get("shape_attributes") if isinstance(region, Mapping) else None
    if not isinstance(drawn, Mapping):
        return Shape(None, row, problem="it has no shape")
    shape = Shape(_kind(region.get("region_attributes")), row)
    form = drawn.get("name")
    try:
        if form == "polygon":
            shape.parts = [[ring_of(list(zip(drawn["all_points_x"], drawn["all_points_y"], strict=True)))]]
        elif form == "rect":
            x, y, width, height = (float(drawn[key]) for key in ("x", "y", "width", "height"))
            shape.parts = [[rectangle(x, y, x + width, y + height)]]
        elif form == "circle":
            x, y, radius = (float(drawn[key]) for key in ("cx", "cy", "r"))
            shape.parts = [[ellipse(x, y, radius, radius)]]
        elif form == "ellipse":
            x, y, radius_x, radius_y = (float(drawn[key]) for key in ("cx", "cy", "rx", "ry"))
            shape.parts = [[ellipse(x, y, radius_x, radius_y, float(drawn.get("theta", 0)))]]
        else:
            shape.problem = f"it is a {str(form)[:20]}, which has no area"
    except (KeyError, TypeError, ValueError, OverflowError):
        shape.problem = f"its {str(form)[:20]} cannot be read"
    return shape


def _kind(attributes: object) -> str | None:
    if not isinstance(attributes, Mapping):
        return None
    named = {str(key).lower(): name for key, value in attributes.items() if (name := name_of(value)) is not None}
    if len(named) == 1:
        return next(iter(named.values()))
    return next((named[key] for key in ("type", "class", "label", "name") if key in named), None)
