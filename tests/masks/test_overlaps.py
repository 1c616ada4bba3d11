"""Overlap resolution and label images: properties that hold for any masks, and cases drawn by hand."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import POLICIES, LabelCrops, clip_crop, crops_from_labels, label_image, resolve_overlaps

HEIGHT, WIDTH = 9, 11


@st.composite
def a_crop(draw):
    """Any small mask; it may be empty and may reach outside the image."""
    shape = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    return MaskCrop(draw(st.integers(-4, HEIGHT + 2)), draw(st.integers(-4, WIDTH + 2)), draw(arrays(bool, shape)))


crop_lists = st.lists(a_crop(), max_size=6)
policies = st.sampled_from(POLICIES)


def painted(crop):
    """The full mask, pixel by pixel."""
    full = np.zeros((HEIGHT, WIDTH), bool)
    for y, x in zip(*np.nonzero(crop.mask), strict=True):
        if 0 <= y + crop.top < HEIGHT and 0 <= x + crop.left < WIDTH:
            full[y + crop.top, x + crop.left] = True
    return full


def stack(crops):
    return np.array([painted(crop) for crop in crops], dtype=bool).reshape(-1, HEIGHT, WIDTH)


@given(crop_lists, policies, st.randoms())
def test_disjoint_subsets_with_the_same_union(crops, policy, random):
    scores = [random.random() for _ in crops]
    resolved = resolve_overlaps(crops, HEIGHT, WIDTH, policy, scores)
    before, after = stack(crops), stack(resolved)
    assert after.shape == before.shape
    assert (after.sum(axis=0) <= 1).all(), "disjoint"
    assert np.array_equal(after.any(axis=0), before.any(axis=0)), "the union is kept"
    assert (after <= before).all(), "nobody gains a pixel"


@given(crop_lists, policies, st.randoms())
def test_resolving_twice_changes_nothing(crops, policy, random):
    scores = [random.random() for _ in crops]
    once = resolve_overlaps(crops, HEIGHT, WIDTH, policy, scores)
    twice = resolve_overlaps(once, HEIGHT, WIDTH, policy, scores)
    assert np.array_equal(stack(once), stack(twice))


@given(crop_lists, policies, st.lists(st.integers(0, 2), min_size=6, max_size=6))
def test_the_winner_of_every_pixel(crops, policy, scores):
    scores = scores[: len(crops)]
    before, after = stack(crops), stack(resolve_overlaps(crops, HEIGHT, WIDTH, policy, scores))

    def rank(i):
        sign = {"score": 0, "smaller": 1, "larger": -1}[policy]
        return sign * crops[i].area, -scores[i], i

    for y, x in np.argwhere(before.any(axis=0)):
        claimants = np.flatnonzero(before[:, y, x])
        assert after[min(claimants, key=rank), y, x]


@given(crop_lists)
def test_results_are_tight_and_inside(crops):
    for crop in resolve_overlaps(crops, HEIGHT, WIDTH):
        assert crop.tight().mask.shape == crop.mask.shape
        assert crop.area == painted(crop).sum()


@given(crop_lists)
def test_clipping(crops):
    for crop in crops:
        clipped = clip_crop(crop, HEIGHT, WIDTH)
        assert np.array_equal(clipped.to_full(HEIGHT, WIDTH), painted(crop))


def bar(left, length):
    return MaskCrop(0, left, np.ones((1, length), bool))


@pytest.mark.parametrize(
    ("policy", "scores", "areas"),
    [
        ("score", None, [4, 4]),
        ("score", [0.1, 0.9], [2, 6]),
        ("score", [0.5, 0.5], [4, 4]),
        ("smaller", [0.1, 0.9], [4, 4]),
        ("larger", [0.9, 0.1], [2, 6]),
    ],
)
def test_two_bars(policy, scores, areas):
    bars = [bar(0, 4), bar(2, 6)]
    assert [crop.area for crop in resolve_overlaps(bars, 1, 8, policy, scores)] == areas


def test_equal_areas_go_to_the_higher_score():
    assert [crop.area for crop in resolve_overlaps([bar(0, 4), bar(2, 4)], 1, 8, "smaller", [0.1, 0.9])] == [2, 4]


def test_a_covered_cell_stays_in_the_list_as_an_empty_crop():
    resolved = resolve_overlaps([bar(0, 8), bar(2, 3)], 1, 8)
    assert [crop.area for crop in resolved] == [8, 0]
    assert resolved[1].mask.shape == (0, 0)


def test_no_cells():
    assert resolve_overlaps([], 5, 5, scores=[]) == []
    assert not label_image([], 5, 5).any()
    assert crops_from_labels(np.zeros((5, 5), int)) == []


def test_wrong_arguments():
    with pytest.raises(ValueError, match="policy"):
        resolve_overlaps([bar(0, 1)], 1, 8, "best")
    with pytest.raises(ValueError, match="2 scores for 1"):
        resolve_overlaps([bar(0, 1)], 1, 8, scores=[1, 2])


def test_label_image_shows_the_earlier_crop():
    assert label_image([bar(0, 4), bar(2, 4)], 1, 8).tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]]
    assert label_image([], 2, 2).dtype == np.int32


@given(arrays(np.int32, (HEIGHT, WIDTH), elements=st.integers(0, 5)))
def test_labels_to_crops_and_back(labels):
    crops = crops_from_labels(labels)
    present = np.unique(labels[labels > 0])
    assert len(crops) == len(present)
    for label, crop in zip(present, crops, strict=True):
        assert np.array_equal(painted(crop), labels == label)
    assert np.array_equal(label_image(crops, HEIGHT, WIDTH), np.searchsorted(present, labels) + 1 - (labels == 0) * 1)


@given(crop_lists)
def test_crops_cut_from_labels_when_asked_for(crops):
    crops = [clip_crop(crop, HEIGHT, WIDTH) for crop in crops]
    labels = label_image(crops, HEIGHT, WIDTH)
    lazy = LabelCrops(labels, [crop.slices for crop in crops])
    assert len(lazy) == len(crops)
    for crop, expected in zip(lazy, resolve_overlaps(crops, HEIGHT, WIDTH), strict=True):
        assert crop.box == expected.box
        assert np.array_equal(crop.mask, expected.mask)
    assert [crop.area for crop in lazy[1:]] == [crop.area for crop in lazy][1:]
    assert not crops or lazy[-1].area == lazy[len(crops) - 1].area
    with pytest.raises(IndexError):
        lazy[len(crops)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("background", [0, 7])
def test_labels_with_large_gaps(dtype, background):
    labels = np.full((4, 6), background, dtype)
    labels[1, 2:5] = np.iinfo(dtype).max
    labels[3, 0] = 3
    expected = [labels == value for value in np.unique(labels) if value]
    crops = crops_from_labels(labels)
    assert len(crops) == len(expected)
    assert all(np.array_equal(crop.to_full(4, 6), mask) for crop, mask in zip(crops, expected, strict=True))


@pytest.mark.parametrize("labels", [np.zeros((2, 3, 3), int), np.zeros((3, 3)), np.array([[0, -1]])])
def test_what_is_no_label_image(labels):
    with pytest.raises(CellSegError, match="label image"):
        crops_from_labels(labels)


def test_a_thousand_cells_take_a_moment():
    rng = np.random.default_rng(0)
    crops = [MaskCrop(*rng.integers(0, 1900, 2).tolist(), np.ones((40, 40), bool)) for _ in range(1000)]
    start = time.perf_counter()
    resolved = resolve_overlaps(crops, 2000, 2000)
    # A full-size mask per cell would be 4 GB and seconds.
    assert time.perf_counter() - start < 1
    assert sum(crop.area for crop in resolved) == np.count_nonzero(label_image(crops, 2000, 2000))
