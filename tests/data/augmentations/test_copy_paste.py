"""Pasted cells: where they may lie, what they hide, and that their edge does not show."""

import cv2
import numpy as np
import pytest

from cellseg_d2.data.augmentations.copy_paste import FEATHER, _resized, paste_cells, visible_parts
from cellseg_d2.masks.crop import MaskCrop
from tests.discs import disc_image


@pytest.fixture(scope="module")
def target():
    return disc_image(np.random.default_rng(0), 256, 8, class_index=0)


@pytest.fixture(scope="module")
def source():
    image, cells = disc_image(np.random.default_rng(1), 256, 6, class_index=1)
    return np.clip(image.astype(int) + 40, 0, 255).astype(np.uint8), cells


def covered(crops, shape):
    return np.any([crop.to_full(*shape) for crop in crops], axis=0)


def test_cells_are_placed_with_their_pixels(target, source):
    image, new, indices = paste_cells(*target, *source, 4, np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert image.shape == target[0].shape
    assert len(new) == len(indices) == 4
    assert len(set(indices.tolist())) == 4
    for crop, index in zip(new, indices, strict=True):
        assert crop.area == source[1][index].area
        x0, y0, x1, y1 = crop.box
        assert 0 <= x0 < x1 <= 256
        assert 0 <= y0 < y1 <= 256
        # Dark cells (60 below their ground) on the target's ground of 128, though the source is 40 brighter.
        assert image[crop.slices][crop.mask].mean() == pytest.approx(128 - 60, abs=3)


def test_only_the_pasted_pixels_and_their_rim_change(target, source):
    image, new, _ = paste_cells(*target, *source, 4, np.random.default_rng(0))
    rim = cv2.dilate(covered(new, image.shape).astype(np.uint8), np.ones((2 * FEATHER + 3,) * 2)) > 0
    assert (image != target[0])[rim].any()
    np.testing.assert_array_equal(image[~rim], target[0][~rim])


def test_the_inputs_are_not_changed(target, source):
    before = [target[0].copy(), source[0].copy(), [c.mask.copy() for c in source[1]]]
    paste_cells(*target, *source, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(target[0], before[0])
    np.testing.assert_array_equal(source[0], before[1])
    for cell, mask in zip(source[1], before[2], strict=True):
        np.testing.assert_array_equal(cell.mask, mask)


@pytest.mark.parametrize("max_overlap", [0.0, 0.2, 0.5])
def test_little_of_any_cell_is_hidden(target, source, max_overlap):
    hidden_at_all = False
    for seed in range(10):
        image, new, _ = paste_cells(*target, *source, 6, np.random.default_rng(seed), max_overlap)
        full = [crop.to_full(*image.shape) for crop in [*target[1], *new]]
        for later in range(len(target[1]), len(full)):
            below = np.any(full[:later], axis=0)
            assert (full[later] & below).sum() <= max_overlap * full[later].sum()
            for earlier in full[:later]:
                assert (full[later] & earlier).sum() <= max_overlap * earlier.sum()
        rest = visible_parts(target[1], new, *image.shape)
        top = covered(new, image.shape)
        for before, after in zip(target[1], rest, strict=True):
            np.testing.assert_array_equal(after.to_full(*image.shape), before.to_full(*image.shape) & ~top)
            hidden_at_all |= after.area < before.area
    assert hidden_at_all == (max_overlap > 0)


def test_the_edge_does_not_show():
    """Copies of the ground itself vanish: no step in level remains where they were pasted."""
    generator = np.random.default_rng(5)
    target = np.clip(generator.normal(100, 3, (200, 200)), 0, 255).astype(np.uint8)
    source = np.clip(generator.normal(150, 3, (200, 200)), 0, 255).astype(np.uint8)
    y, x = np.mgrid[:200, :200]
    discs = [MaskCrop.from_full(np.hypot(y - 50, x - c) < 20) for c in (40, 100, 160)]
    image, new, _ = paste_cells(target, [], source, discs, 3, generator)
    assert len(new) == 3
    inside = covered(new, image.shape)
    outside = ~(cv2.dilate(inside.astype(np.uint8), np.ones((7, 7))) > 0)
    rim = ~inside & ~outside
    assert image[inside].mean() == pytest.approx(image[outside].mean(), abs=0.5)
    assert image[rim].mean() == pytest.approx(image[outside].mean(), abs=0.5)
    slope = np.abs(cv2.Laplacian(image, cv2.CV_64F))
    assert slope[rim].mean() < 1.05 * slope[outside].mean()


def test_neighbours_are_not_brought_along():
    source = np.full((100, 100), 128, np.uint8)
    left, right = np.zeros((2, 100, 100), bool)
    left[40:60, 30:50], right[40:60, 50:70] = True, True
    source[left], source[right] = 60, 250
    target = np.full((100, 100), 128, np.uint8)
    cells = [MaskCrop.from_full(left), MaskCrop.from_full(right)]
    for seed in range(5):
        image, _, indices = paste_cells(target, [], source, cells, 1, np.random.default_rng(seed))
        assert (image.max() <= 129) if indices[0] == 0 else (image.min() >= 127)


def test_cut_cells_are_not_taken():
    source = np.full((60, 60), 100, np.uint8)
    cut = MaskCrop(0, 20, np.ones((8, 8), bool))
    whole = MaskCrop(30, 30, np.ones((8, 8), bool))
    empty = MaskCrop(0, 0, np.zeros((0, 0), bool))
    _, new, indices = paste_cells(source, [], source, [cut, whole, empty], 3, np.random.default_rng(0))
    assert indices.tolist() == [1]
    assert len(new) == 1


def test_a_full_image_takes_no_cell(source):
    target = np.full((256, 256), 90, np.uint8)
    everything = [MaskCrop(0, 0, np.ones((256, 256), bool))]
    image, new, indices = paste_cells(target, everything, *source, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(image, target)
    assert new == []
    assert indices.shape == (0,)


def test_a_cell_larger_than_the_image_is_left_out(source):
    small = np.full((12, 12), 90, np.uint8)
    image, new, _ = paste_cells(small, [], *source, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(image, small)
    assert new == []


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_resized_cells_keep_their_level_and_change_their_area(target, source, factor):
    image, new, indices = paste_cells(*target, *source, 3, np.random.default_rng(0), scale=(factor, factor))
    assert new
    for crop, index in zip(new, indices, strict=True):
        assert crop.area == pytest.approx(source[1][index].area * factor**2, rel=0.08)
        inner = cv2.erode(np.pad(crop.mask.astype(np.uint8), 1), np.ones((5, 5)))[1:-1, 1:-1] > 0
        assert np.median(image[crop.slices][inner]) == pytest.approx(128 - 60, abs=5)


@pytest.mark.parametrize("factor", [0.31, 0.5, 0.77, 1.3, 2.0, 3.9])
def test_only_the_crop_of_a_cell_is_resized_with_the_result_of_the_whole_mask(factor):
    generator = np.random.default_rng(3)
    image = generator.integers(0, 256, (97, 131), dtype=np.uint8)
    cells = [MaskCrop(0, 0, np.zeros((0, 0), bool)), MaskCrop(40, 40, np.eye(1, dtype=bool))]
    for _ in range(40):
        height, width = generator.integers(1, 40, 2)
        place = generator.integers(0, 97 - height + 1), generator.integers(0, 131 - width + 1)
        cells.append(MaskCrop(*map(int, place), generator.random((height, width)) < 0.6).tight())
    small, found = _resized(image, cells, factor)
    for cell, crop in zip(cells, found, strict=True):
        full = cell.to_full(*image.shape).astype(np.uint8)
        whole = MaskCrop.from_full(cv2.resize(full, small.shape[::-1], interpolation=cv2.INTER_NEAREST))
        assert crop.box == whole.box
        np.testing.assert_array_equal(crop.mask, whole.mask)


def test_factors_are_drawn_from_their_range(target, source):
    areas = []
    for seed in range(20):
        _, new, indices = paste_cells(*target, *source, 1, np.random.default_rng(seed), scale=(0.5, 2.0))
        areas += [crop.area / source[1][index].area for crop, index in zip(new, indices, strict=True)]
    assert 0.2 < min(areas) < 0.6
    assert 1.6 < max(areas) < 4.4
