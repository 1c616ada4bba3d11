"""Run-lengths of all cells of a label image against those of one cell after another, and of each of its pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg_d2.masks.crop import MaskCrop, crop_to_kaggle, crop_to_runs
from cellseg_d2.masks.rle import kaggle_from_labels, runs_from_labels

MOST = 5
sides = st.tuples(st.integers(1, 12), st.integers(1, 12))
label_images = sides.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, MOST)))


def assert_same_as_one_by_one(labels, count):
    width = labels.shape[1]
    crops = [MaskCrop.from_full(labels == i + 1) for i in range(count)]
    texts = kaggle_from_labels(labels, count)
    assert texts == [crop_to_kaggle(crop, width) for crop in crops]
    for i, text in enumerate(texts):
        flat = np.pad((labels == i + 1).ravel().astype(int), 1)
        starts, ends = (np.flatnonzero(np.diff(flat) == step) for step in (1, -1))
        numbers = np.stack([starts + 1, ends - starts], axis=1).ravel()
        assert text == " ".join(map(str, numbers.tolist()))
    runs, cells = runs_from_labels(labels, count)
    for i, crop in enumerate(crops):
        assert np.array_equal(runs[cells == i], crop_to_runs(crop, width))


@given(label_images)
def test_equals_one_by_one(labels):
    assert_same_as_one_by_one(labels, MOST)


def test_long_runs_and_numbers_of_many_digits():
    labels = np.zeros((1100, 1300), np.uint16)
    labels[5:1000, 300:1290] = 1
    labels[::7, 1::3] = 2
    labels[700:, 1200:] = 4
    labels[0, 0] = labels[-1, -1] = 3
    assert_same_as_one_by_one(labels, 5)


def test_one_cell_everywhere_and_none_anywhere():
    assert_same_as_one_by_one(np.ones((4, 7), np.uint8), 2)
    assert_same_as_one_by_one(np.zeros((4, 7), np.int64), 2)
    assert kaggle_from_labels(np.zeros((4, 7), int), 0) == []


def test_runs_go_on_over_the_end_of_a_line():
    labels = np.array([[0, 0, 1], [1, 2, 2], [2, 0, 0]])
    assert kaggle_from_labels(labels, 2) == ["3 2", "5 3"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2)), "2-D of float64"),
        (np.zeros(4, int), "1-D of int64"),
        (np.array([[0, 3]]), "0…2, not 0…3"),
        (np.array([[-1, 2]]), "0…2, not -1…2"),
    ],
)
def test_what_is_no_label_image_of_so_many_cells(labels, message):
    with pytest.raises(ValueError, match=message):
        kaggle_from_labels(labels, 2)
