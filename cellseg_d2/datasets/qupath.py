"""GeoJSON of QuPath, as this project writes it too: polygons with classes, a file an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import DrawnImage, Shape, image_name, name_of, open_drawn_files, ring_of, score_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json

ENDINGS = (".geojson", ".geo.json")


@DATASET_READERS.register("geojson", metavar="PATH")
def open_geojson(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """GeoJSON of QuPath: the folder of files named as their images, or one of them"""
    return open_drawn_files(path, ENDINGS, read_geojson, options)


def read_geojson(path: str | Path) -> DrawnImage:
    """Read one file: a FeatureCollection, a list of features, or one; its Polygons and MultiPolygons are
    cells.

    The image is called as the file, with or without the suffix of the image. A feature's class is its
    ``classification``; of a derived class, QuPath's names are joined as it shows them, such as "Tumor: Positive".
    Its measurement ``score``, which this project writes, is the cell's.

    Raises:
        CellSegError: it is not GeoJSON.
    """
    path = Path(path)
    content = read_json(path)
    features = content
    if isinstance(content, Mapping):
        features = [content] if content.get("type") == "Feature" else content.get("features")
    if not isinstance(features, list):
        raise CellSegError(f"{path} is not GeoJSON with a list of features")
    stem = next((path.name[: -len(ending)] for ending in ENDINGS if path.name.lower().endswith(ending)), path.stem)
    shapes = [_shape(feature, row) for row, feature in enumerate(features, start=1)]
    return DrawnImage(image_name(stem, ENDINGS[0]), shapes)


def _shape(feature: Any, row: int) -> Shape:
    geometry = feature.get("geometry") if isinstance(feature, Mapping) else None
    if not isinstance(geometry, Mapping):
        return Shape(None, row, problem="it has no geometry")
    properties = feature.get("properties")
    named = properties.get("classification") if isinstance(properties, Mapping) else None
    if isinstance(named, Mapping):
        names = named.get("names")
        named = ": ".join(map(str, names)) if isinstance(names, list) else named.get("name")
    measured = properties.get("measurements") if isinstance(properties, Mapping) else None
    score = score_of(measured.get("score")) if isinstance(measured, Mapping) else None
    shape = Shape(name_of(named), row, score=score)
    form, places = geometry.get("type"), geometry.get("coordinates")
    polygons = {"Polygon": [places], "MultiPolygon": places}.get(str(form))
    if polygons is None:
        shape.problem = f"it is a {str(form)[:20]}, which has no area"
    elif not isinstance(polygons, list) or not all(isinstance(rings, list) and rings for rings in polygons):
        shape.problem = f"its {form} has no rings"
    else:
        shape.parts = [[_ring(places) for places in rings] for rings in polygons]
    return shape


def _ring(places: Any) -> np.ndarray:
    """Corners of a ring, whose last position is the first one again; a position may have a height, too."""
    flat = [place[:2] if isinstance(place, list) else place for place in places] if isinstance(places, list) else places
    ring = ring_of(flat)
    return ring[:-1] if len(ring) > 3 and (ring[0] == ring[-1]).all() else ring
