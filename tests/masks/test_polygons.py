"""Outlines on any mask: the same pixels, the same area, and rings that geometry libraries accept."""

import time

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from cellseg_d2.masks.crop import MaskCrop, kaggle_to_crop
from cellseg_d2.masks.polygons import fill, outline, signed_area

TOP, LEFT = 3, 40
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def pixels(text):
    return np.array([[char == "#" for char in line] for line in text.split()])


def shape_of(polygons):
    return shapely.MultiPolygon([(p.exterior, list(p.holes)) for p in polygons])


def rasterised(polygons, height, width):
    """The pixels whose centres are inside, by shapely."""
    y, x = np.mgrid[:height, :width] + 0.5
    return shapely.contains_xy(shape_of(polygons), x + LEFT, y + TOP)


@settings(max_examples=60, deadline=None)
@given(masks)
def test_rasterising_gives_the_mask_back(mask):
    polygons = outline(MaskCrop(TOP, LEFT, mask))
    assert np.array_equal(rasterised(polygons, *mask.shape), mask)
    assert sum(polygon.area for polygon in polygons) == mask.sum()


@settings(max_examples=60, deadline=None)
@given(masks)
def test_rings_are_valid_and_pieces_apart(mask):
    polygons = outline(MaskCrop(TOP, LEFT, mask))
    assert shape_of(polygons).is_valid, shapely.is_valid_reason(shape_of(polygons))
    assert len(polygons) == ndimage.label(mask)[1], "one polygon for each piece that hangs together by edges"
    for polygon in polygons:
        assert signed_area(polygon.exterior) > 0
        assert all(signed_area(hole) < 0 for hole in polygon.holes)
        for ring in polygon.rings:
            assert ring.dtype == np.int64
            assert len(np.unique(ring, axis=0)) == len(ring), "no corner twice"
            turns = np.abs(np.diff(ring, axis=0, append=ring[:1])) > 0
            assert (turns.sum(axis=1) == 1).all(), "along the grid"
            assert (turns != np.roll(turns, 1, axis=0)).all(), "only corners, nothing between them"


@pytest.mark.parametrize(
    ("text", "exteriors", "holes"),
    [
        ("#", [[[0, 0], [1, 0], [1, 1], [0, 1]]], [0]),
        ("##. .##", [[[0, 0], [2, 0], [2, 1], [3, 1], [3, 2], [1, 2], [1, 1], [0, 1]]], [0]),
        ("#. .#", [[[0, 0], [1, 0], [1, 1], [0, 1]], [[1, 1], [2, 1], [2, 2], [1, 2]]], [0, 0]),
        (".# #.", [[[1, 0], [2, 0], [2, 1], [1, 1]], [[0, 1], [1, 1], [1, 2], [0, 2]]], [0, 0]),
        ("### #.# ###", [[[0, 0], [3, 0], [3, 3], [0, 3]]], [1]),
        ("### #.# ##.", [[[0, 0], [3, 0], [3, 2], [2, 2], [2, 3], [0, 3]]], [1]),
    ],
)
def test_by_hand(text, exteriors, holes):
    polygons = outline(MaskCrop(0, 0, pixels(text)))
    assert [polygon.exterior.tolist() for polygon in polygons] == exteriors
    assert [len(polygon.holes) for polygon in polygons] == holes


def test_a_hole_belongs_to_the_piece_around_it():
    ring = pixels("##### #...# #.#.# #...# #####")
    outer, inner = outline(MaskCrop(10, 20, ring))
    assert outer.area == 16
    assert outer.holes[0].tolist() == [[21, 11], [21, 14], [24, 14], [24, 11]]
    assert inner.exterior.min(axis=0).tolist() == [22, 12]
    assert (inner.area, inner.holes) == (1, ())


def test_nothing():
    assert outline(MaskCrop(0, 0, np.zeros((0, 0), bool))) == []
    assert outline(MaskCrop(5, 5, np.zeros((3, 2), bool))) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30))
def test_area_of_rectangles(height, width):
    [polygon] = outline(MaskCrop(TOP, LEFT, np.ones((height, width), bool)))
    assert signed_area(polygon.exterior) == height * width
    assert signed_area(polygon.exterior[::-1]) == -height * width


def test_real_cells(shared_data):
    """Astrocytes: large, branched, a quarter of them with holes."""
    table = pd.read_csv(shared_data / "sartorius/train.csv")
    crops = [kaggle_to_crop(text, 520, 704) for text in table[table["cell_type"] == "astro"]["annotation"][:150]]
    pieces = [outline(crop) for crop in crops]
    assert all(shape_of(polygons).is_valid for polygons in pieces)
    assert [shape_of(polygons).area for polygons in pieces] == [crop.area for crop in crops]
    assert sum(len(polygon.holes) for polygons in pieces for polygon in polygons) > 10


def test_many_cells_take_no_time():
    y, x = np.mgrid[-9:10, -9:10]
    crops = [MaskCrop(0, 0, x**2 + y**2 <= radius) for radius in np.linspace(9, 81, 800)]
    start = time.process_time()
    for crop in crops:
        outline(crop)
    assert time.process_time() - start < 1


@given(arrays(bool, (9, 11)))
def test_filled_outlines_are_the_mask(mask):
    crop = MaskCrop(3, 2, mask)
    rings = [ring for polygon in outline(crop) for ring in polygon.rings]
    if rings:
        np.testing.assert_array_equal(fill(rings, 12, 13).to_full(12, 13), crop.to_full(12, 13))
        np.testing.assert_array_equal(fill(rings, 7, 8).to_full(7, 8), crop.to_full(12, 13)[:7, :8])


def test_pixels_whose_centres_are_inside_are_filled():
    triangle = np.array([[0.6, 0.6], [4.3, 0.6], [0.6, 4.3]])
    filled = fill([triangle], 6, 6).to_full(6, 6)
    y, x = np.mgrid[:6, :6] + 0.5
    np.testing.assert_array_equal(filled, (x > 0.6) & (y > 0.6) & (x + y < 4.9))
    assert fill([triangle + 20], 6, 6).area == 0
