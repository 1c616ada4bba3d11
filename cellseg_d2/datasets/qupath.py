"""GeoJSON of QuPath, as this project writes it too: polygons with classes, a file an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import DrawnImage, Shape, name_of, open_drawn_files, ring_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json

ENDINGS = (".geojson", ".geo.json")


@DATASET_READERS.register("geojson", metavar="PATH")
def open_geojson(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """GeoJSON of QuPath: the folder of files named as their images, or one of them"""
    return open_drawn_files(path, ENDINGS, read_geojson, options)


def read_geojson(path: str | Path) -> DrawnImage:
    """Read one file: a FeatureCollection, or a list of features, of which the Polygons and MultiPolygons are cells.

    The image is called as the file. A feature's class is its ``classification``.

    Raises:
        CellSegError: it is not GeoJSON.
    """
    path = Path(path)
    content = read_json(path)
    features = content.get("features") if isinstance(content, Mapping) else content
    if not isinstance(features, list):
        raise CellSegError(f"{path} is not GeoJSON with a list of features")
    stem = next((path.name[: -len(ending)] for ending in ENDINGS if path.name.lower().endswith(ending)), path.stem)
    return DrawnImage(f"{stem}.geojson", [_shape(feature, row) for row, feature in enumerate(features, start=1)])


def _shape(feature: Any, row: int) -> Shape:
    geometry = feature.get("geometry") if isinstance(feature, Mapping) else None
    if not isinstance(geometry, Mapping):
        return Shape(None, row, problem="it has no geometry")
    properties = feature.get("properties")
    named = properties.get("classification") if isinstance(properties, Mapping) else None
    shape = Shape(name_of(named.get("name")) if isinstance(named, Mapping) else name_of(named), row)
    form, places = geometry.get("type"), geometry.get("coordinates")
    polygons = {"Polygon": [places], "MultiPolygon": places}.get(str(form))
    if polygons is None:
        shape.problem = f"it is a {str(form)[:20]}, which has no area"
    elif not isinstance(polygons, list) or not all(isinstance(rings, list) and rings for rings in polygons):
        shape.problem = f"its {form} has no rings"
    else:
        # The last position of a ring is the first one again.
        shape.parts = [[ring_of(ring)[:-1] for ring in rings] for rings in polygons]
    return shape
