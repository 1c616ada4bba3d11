"""Run-length encodings against masks drawn pixel by pixel, and against pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from cellseg_d2.masks import rle
from cellseg_d2.masks.crop import (
    MaskCrop,
    coco_to_crop,
    crop_to_coco,
    crop_to_kaggle,
    crop_to_runs,
    kaggle_to_crop,
    runs_to_crop,
)

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))
small_runs = st.lists(st.tuples(st.integers(-30, 160), st.integers(-3, 60)), max_size=8)


def test_the_competitions_example():
    assert rle.parse_kaggle_rle("1 3 10 5").tolist() == [[0, 3], [9, 5]]


def test_kaggle_is_row_major_and_one_indexed():
    mask = np.zeros((3, 4), bool)
    mask[0, 1:3] = True
    mask[2, 0] = True
    assert crop_to_kaggle(MaskCrop.from_full(mask), 4) == "2 2 9 1"


def test_coco_is_column_major():
    mask = np.zeros((3, 4), bool)
    mask[1:, 2] = True
    assert rle.decode_coco(crop_to_coco(MaskCrop.from_full(mask), 3, 4)).tolist() == [[7, 2]]


@given(masks)
def test_kaggle_round_trip(mask):
    text = crop_to_kaggle(MaskCrop.from_full(mask), mask.shape[1])
    assert np.array_equal(kaggle_to_crop(text, *mask.shape).to_full(*mask.shape), mask)
    flat = np.zeros(mask.size, bool)
    for start, length in zip(*[map(int, text.split())] * 2, strict=True):
        flat[start - 1 : start - 1 + length] = True
    assert np.array_equal(flat.reshape(mask.shape), mask)


@given(masks)
def test_coco_equals_pycocotools(mask):
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = crop_to_coco(MaskCrop.from_full(mask), *mask.shape)
    assert ours["counts"] == expected["counts"].decode()
    assert np.array_equal(coco_to_crop(ours).to_full(*mask.shape), mask)
    assert np.array_equal(coco_to_crop(expected).to_full(*mask.shape), mask)


def test_coco_of_a_large_image_with_long_runs():
    mask = np.zeros((3000, 2000), bool)
    mask[10:2900, 300:1700] = True
    mask[5, 5] = True
    mask[::7, 1500:1999:3] = True
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(coco_to_crop(expected).to_full(*mask.shape), mask)
    assert crop_to_coco(MaskCrop.from_full(mask), *mask.shape)["counts"] == expected["counts"].decode()


@given(small_runs)
def test_clean_runs_keep_exactly_the_pixels_inside(pairs):
    height, width = 9, 13
    runs = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    flat = np.zeros(height * width, bool)
    for start, length in pairs:
        for position in range(start, start + max(length, 0)):
            if 0 <= position < flat.size:
                flat[position] = True
    clean = rle.clean_runs(runs, height, width)
    redrawn = np.zeros_like(flat)
    for start, length in clean:
        redrawn[start : start + length] = True
    assert np.array_equal(redrawn, flat)
    assert (clean[1:, 0] > clean[:-1].sum(axis=1)).all(), "sorted and not touching"
    assert np.array_equal(runs_to_crop(clean, width).to_full(height, width).ravel(), flat)


@given(masks)
def test_runs_may_cross_line_ends(mask):
    crop = MaskCrop.from_full(mask)
    runs = crop_to_runs(crop, mask.shape[1])
    assert (runs[1:, 0] > runs[:-1].sum(axis=1)).all()
    assert runs[:, 1].sum() == mask.sum() == crop.area


@pytest.mark.parametrize(
    "text",
    [
        *("1", "1 2 3", "a b", "1 2.5", "1 nan", "1 99999999999999999999999", "١ x"),
        # Numbers that only NumPy reads.
        *("1 5\0", "1_0 2", "1 ٣", "-9223372036854775808 5", "1 9223372036854775808", "1.0 2"),
    ],
)
def test_malformed_text_is_refused(text):
    with pytest.raises(rle.RLEError):
        rle.parse_kaggle_rle(text)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([], "empty"),
        ([[0, 0]], "non-positive length"),
        ([[0, 2], [5, -1]], "non-positive length"),
        ([[-1, 2]], "outside the image"),
        ([[11, 2]], "outside the image"),
        ([[3, 2**62]], "outside the image"),
        ([[0, 3], [2, 2]], "overlaps itself"),
        ([[5, 1], [0, 2]], "unsorted"),
    ],
)
def test_problems_are_named(pairs, problem):
    assert problem in rle.run_problems(np.array(pairs, dtype=np.int64).reshape(-1, 2), 3, 4)


def test_good_runs_have_no_problems():
    assert rle.run_problems(np.array([[0, 4], [4, 1], [11, 1]]), 3, 4) == []


@pytest.mark.parametrize(
    "counts",
    [
        *("0", "o", "\x01", "0é", b"04", [3, 4], [-1, 13]),
        # No counts at all.
        *([2**62] * 4 + [12], [1.5, 10.5], [True, 11], ["12"], [[12]], None, 12),
    ],
)
def test_damaged_coco_counts_are_refused(counts):
    with pytest.raises(rle.RLEError):
        rle.decode_coco({"size": [3, 4], "counts": counts})


def test_uncompressed_coco_counts_are_read():
    assert rle.decode_coco({"size": [3, 4], "counts": [2, 3, 7]}).tolist() == [[2, 3]]


@given(masks)
def test_tight_crops(mask):
    crop = MaskCrop.from_full(mask)
    assert np.array_equal(crop.to_full(*mask.shape), mask)
    if crop.area:
        assert crop.mask[0].any()
        assert crop.mask[-1].any()
        assert crop.mask[:, 0].any()
        assert crop.mask[:, -1].any()
    else:
        assert crop.mask.shape == (0, 0)


def test_a_long_run_from_far_before_the_image_ends_where_it_says():
    runs = np.array([[-500, 550], [-(2**63) + 1, 2**63 - 1], [-70, 71]])
    assert rle.clean_runs(runs[:1], 10, 10).tolist() == [[0, 50]]
    assert rle.clean_runs(runs[1:], 10, 10).tolist() == [[0, 1]]


@pytest.mark.parametrize("size", [[-3, -4], [3.0, 4], [12], None, "34", [2**20, 2**20]])
def test_sizes_that_are_none(size):
    with pytest.raises(rle.RLEError):
        rle.decode_coco({"size": size, "counts": [12]})


@pytest.mark.parametrize("corner", [(-1, 0), (0, -1), (0, 4)])
def test_crops_outside_their_image_have_no_runs(corner):
    """They would be runs of other pixels."""
    crop = MaskCrop(*corner, np.ones((1, 2), bool))
    for encode in (crop_to_runs, crop_to_kaggle):
        with pytest.raises(ValueError, match="outside its image, whose lines have 5 pixels"):
            encode(crop, 5)
