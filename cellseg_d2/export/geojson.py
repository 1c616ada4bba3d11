"""GeoJSON as QuPath (0.4 and later) reads and writes it; other programs read the polygons."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellseg_d2.export.formats import FORMATS
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.masks.polygons import Polygon
from cellseg_d2.visualization.overlays import type_color

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@FORMATS.register("geojson", suffix=".geojson", summary="polygons with measurements, for QuPath and others")
def write_geojson(path: str | Path, segmentation: Segmentation) -> None:
    """Write the cells as features of a FeatureCollection, one a line.

    A geometry is a Polygon, or a MultiPolygon for a cell of several pieces, in pixels of the image along their edges.
    ``properties`` are those of QuPath: a detection with name, classification (with its colour) and measurements, which
    are the numbers of :func:`cellseg_d2.inference.measure.measure_cells`. No cells give an empty collection.
    """
    measured = segmentation.measure().drop(columns=["label", "class"]).to_dict("records")
    classes = {
        name: {"name": name, "color": [int(value) for value in type_color(name, segmentation.class_names)]}
        for name in segmentation.class_names
    }
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        cells = zip(segmentation.outlines, segmentation.cell_types, measured, strict=True)
        for number, (polygons, kind, values) in enumerate(cells, start=1):
            feature = {
                "type": "Feature",
                "geometry": _geometry(polygons),
                "properties": {
                    "objectType": "detection",
                    "name": str(number),
                    "classification": classes[kind],
                    "measurements": {name: _short(value) for name, value in values.items() if math.isfinite(value)},
                },
            }
            file.write((",\n" if number > 1 else "\n") + json.dumps(feature))
        file.write("\n]}\n")


def _geometry(polygons: Sequence[Polygon]) -> dict:
    # Of GeoJSON rings the last position is the first one again.
    parts = [[np.concatenate([ring, ring[:1]]).tolist() for ring in polygon.rings] for polygon in polygons]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _short(value: float) -> float | int:
    """A measurement with seven digits, which is what float32 holds."""
    return value if isinstance(value, int) else float(f"{value:.7g}")
