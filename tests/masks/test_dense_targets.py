"""Per-pixel maps of cells that are laid out by hand or overlap."""

import time

import numpy as np
import pytest

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.dense_targets import dense_targets, smallest_on_top
from cellseg_d2.masks.flows import flow_field
from cellseg_d2.masks.layers import LabelLayers
from tests.shapes import crowd, disc


def layers(*masks):
    return LabelLayers.from_crops([MaskCrop.from_full(mask) for mask in masks], *masks[0].shape)


def test_the_smaller_of_two_cells_has_the_pixel():
    small, large = disc(64, 30, 40, 8), disc(64, 30, 28, 16)
    assert (small & large).any()
    for masks in ((small, large), (large, small)):
        labels = smallest_on_top(layers(*masks))
        assert np.array_equal(labels == 2, small)
        assert np.array_equal(labels == 1, large & ~small)


def test_maps_at_full_size():
    small, large = disc(64, 30, 40, 8), disc(64, 30, 28, 16)
    maps = dense_targets(layers(small, large), np.array([4, 1]))
    assert np.array_equal(maps.foreground, (small | large).astype(np.float32))
    assert np.array_equal(maps.classes, np.where(small, 4, np.where(large, 1, -1)))
    assert np.array_equal(maps.flow, flow_field(np.where(small, 2, np.where(large, 1, 0))))
    assert maps.boundary[30, 31:33].all(), "both sides of where the cells touch"
    assert not maps.boundary[[30, 30, 5], [28, 40, 5]].any()
    assert not (maps.boundary > maps.foreground).any()


def test_coarser_maps_are_the_shares_of_blocks():
    labels = crowd(51, 20, 8)
    masks = layers(*[labels == label for label in range(1, 21)])
    maps = dense_targets(masks, np.zeros(20, int), stride=2)
    assert maps.foreground.shape == maps.boundary.shape == maps.classes.shape == maps.flow.shape[1:] == (26, 26)
    whole = np.pad((labels > 0).astype(float), ((0, 1), (0, 1)))
    expected = (whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]) / 4
    assert maps.foreground == pytest.approx(expected)
    assert np.array_equal(maps.classes >= 0, expected > 0)


def test_coarser_maps_turn_with_the_image():
    labels = crowd(64, 25, 8)
    turned = labels[:, ::-1]
    maps, other = (
        dense_targets(layers(*[own == label for label in range(1, 26)]), np.arange(25), stride=2)
        for own in (labels, turned)
    )
    assert np.array_equal(maps.foreground[:, ::-1], other.foreground)
    assert np.array_equal(maps.classes[:, ::-1], other.classes)
    assert np.abs(maps.flow[0, :, ::-1] + other.flow[0]).max() < 1e-3
    assert np.abs(maps.flow[1, :, ::-1] - other.flow[1]).max() < 1e-3


def test_no_cells():
    maps = dense_targets(LabelLayers.from_crops([], 10, 12), np.zeros(0, np.int64), stride=2)
    assert not any(own.any() for own in (maps.foreground, maps.boundary, maps.flow))
    assert (maps.classes == -1).all()
    assert maps.classes.shape == (5, 6)


def test_cells_that_were_left_away_are_background():
    masks = layers(disc(40, 10, 10, 6), disc(40, 28, 28, 6)).select(np.array([1]))
    maps = dense_targets(masks, np.array([7]))
    assert np.array_equal(maps.foreground > 0, disc(40, 28, 28, 6))
    assert set(np.unique(maps.classes)) == {-1, 7}


def test_a_crowded_crop_takes_little():
    labels = crowd(384, 400, 12)
    masks = layers(*[labels == label for label in range(1, 401)])
    classes = np.zeros(400, np.int64)
    dense_targets(masks, classes, stride=2)
    start = time.process_time()
    for _ in range(5):
        dense_targets(masks, classes, stride=2)
    assert (time.process_time() - start) / 5 < 0.1  # measured: 0.02


def test_nothing_is_learnt_where_nobody_annotated():
    cell = np.zeros((8, 9), bool)
    cell[2:5, 1:5] = True
    ignore = np.zeros_like(cell)
    ignore[:, 4:] = True
    maps = dense_targets(layers(cell), np.array([0]), stride=2, ignore=ignore)
    plain = dense_targets(layers(cell), np.array([0]), stride=2)
    # Blocks with a pixel of the cell are known, also where the region reaches into them.
    unknown = np.zeros((4, 5), bool)
    unknown[:, 2:] = True
    unknown[1:3, 2] = False
    assert (maps.foreground[unknown] == -1).all()
    assert np.array_equal(maps.foreground[~unknown], plain.foreground[~unknown])
    assert np.array_equal(maps.flow, plain.flow)
    assert np.array_equal(maps.classes, plain.classes)
