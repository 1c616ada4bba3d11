"""Connected components."""

import numpy as np
from scipy import ndimage

from cellseg_d2.masks.components import components, filled, largest_component, split_components
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.layers import LabelLayers


def test_diagonal_neighbours_are_one_component():
    assert len(components(MaskCrop.from_full(np.eye(4, dtype=bool)))) == 1


def test_components_keep_their_places():
    mask = np.zeros((6, 9), bool)
    mask[1:3, 1:3] = mask[4:, 6:] = True
    parts = components(MaskCrop.from_full(mask))
    assert [part.box for part in parts] == [(1, 1, 3, 3), (6, 4, 9, 6)]
    assert np.array_equal(sum(part.to_full(6, 9).astype(int) for part in parts), mask)


def test_an_empty_mask_has_none():
    assert components(MaskCrop(0, 0, np.zeros((0, 0), bool))) == []
    assert components(MaskCrop(2, 3, np.zeros((2, 2), bool))) == []


def test_splitting_remembers_the_origin():
    two = np.zeros((5, 8), bool)
    two[0, 0] = two[4, 7] = True
    crops = [MaskCrop.from_full(two), MaskCrop(0, 0, np.zeros((0, 0), bool)), MaskCrop(1, 1, np.ones((2, 2), bool))]
    split, origin = split_components(LabelLayers.from_crops(crops, 5, 8))
    assert origin.tolist() == [0, 0, 2]
    assert split.areas.tolist() == [1, 1, 4]


def test_largest_component_joins_diagonal_neighbours():
    mask = np.zeros((4, 6), bool)
    mask[[0, 1, 2], [0, 1, 2]] = True
    mask[0:2, 5] = True
    assert np.array_equal(np.argwhere(largest_component(mask)), [[0, 0], [1, 1], [2, 2]])


def test_the_largest_of_nothing_is_nothing():
    for empty in (np.zeros((0, 0), bool), np.zeros((3, 4), bool)):
        assert np.array_equal(largest_component(empty), empty)


def test_filled_is_what_scipy_fills():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 9), (7, 8), (40, 30)):
        for share in (0.3, 0.6, 0.9, 1.0):
            mask = rng.random(shape) < share
            assert np.array_equal(filled(mask), ndimage.binary_fill_holes(mask))
