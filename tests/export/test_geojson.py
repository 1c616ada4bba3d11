"""GeoJSON for QuPath: valid polygons that cover the cells, with what QuPath shows of them."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from shapely.geometry import shape

from cellseg_d2.export.geojson import write_geojson
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.overlays import type_color
from tests.inference.segmentations import CLASS_NAMES, HEIGHT, WIDTH, difficult_crops, segmentation_of

Y, X = np.mgrid[:HEIGHT, :WIDTH] + 0.5


def written(path, segmentation):
    write_geojson(path, segmentation)
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)  # NaN is no JSON


def test_the_same_pixels(tmp_path):
    segmentation = segmentation_of(difficult_crops())
    content = written(tmp_path / "a.geojson", segmentation)
    assert content["type"] == "FeatureCollection"
    features = content["features"]
    assert [feature["type"] for feature in features] == ["Feature"] * 7
    assert [feature["geometry"]["type"] for feature in features] == ["Polygon"] * 2 + ["MultiPolygon"] + ["Polygon"] * 4
    for feature, mask in zip(features, segmentation.masks, strict=True):
        geometry = shape(feature["geometry"])
        assert geometry.is_valid
        assert geometry.area == mask.sum()
        assert np.array_equal(shapely.contains_xy(geometry, X, Y), mask)
    assert len(features[1]["geometry"]["coordinates"]) == 3, "an exterior and two holes"


@settings(max_examples=20, deadline=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)).filter(np.any))
def test_any_mask(tmp_path_factory, mask):
    segmentation = segmentation_of([MaskCrop(4, 9, mask)])
    [feature] = written(tmp_path_factory.mktemp("geojson") / "a.geojson", segmentation)["features"]
    geometry = shape(feature["geometry"])
    assert geometry.is_valid
    assert geometry.area == mask.sum()
    assert np.array_equal(shapely.contains_xy(geometry, X, Y), segmentation.masks[0])
    for polygon in getattr(geometry, "geoms", [geometry]):
        assert polygon.exterior.is_ccw, "as RFC 7946 wants, the exterior runs the other way than the holes"
        assert not any(ring.is_ccw for ring in polygon.interiors)


def test_properties_are_those_of_qupath(tmp_path):
    segmentation = segmentation_of(difficult_crops())
    features = written(tmp_path / "a.geojson", segmentation)["features"]
    properties = features[1]["properties"]
    assert properties["objectType"] == "detection"
    assert properties["name"] == "2"
    color = list(type_color(CLASS_NAMES[1], CLASS_NAMES))
    assert properties["classification"] == {"name": "Ätz/a: b", "color": color}
    table = segmentation.measure()
    for feature, (_, row) in zip(features, table.iterrows(), strict=True):
        measurements = feature["properties"]["measurements"]
        known = row.drop(["label", "class"]).dropna()
        assert measurements == pytest.approx(known.to_dict(), rel=1e-6)
    assert "perimeter_um" not in properties["measurements"], "of oblong pixels it is not known"


def test_no_cells(tmp_path):
    assert written(tmp_path / "a.geojson", segmentation_of([])) == {"type": "FeatureCollection", "features": []}
