"""Regions to ignore: joined, cut out, and compared with what is predicted."""

import numpy as np
import pytest

from cellseg_d2.masks.crop import MaskCrop, crop_to_coco, united
from cellseg_d2.masks.ignore import box_shares, judged, outside_of, without_cells

HEIGHT, WIDTH = 20, 30


def rectangle(top, left, height, width):
    return MaskCrop(top, left, np.ones((height, width), dtype=bool))


def rle(crop):
    return crop_to_coco(crop, HEIGHT, WIDTH)


def test_united_is_the_union_wherever_the_parts_are():
    rng = np.random.default_rng(0)
    parts = [rng.random((HEIGHT, WIDTH)) > 0.9 for _ in range(4)]
    parts[2][:] = False
    whole = united([MaskCrop.from_full(part) for part in parts] + [None])
    assert (whole.to_full(HEIGHT, WIDTH) == np.any(parts, axis=0)).all()
    assert united([]) is None
    assert united([None, MaskCrop.from_full(parts[2])]) is None


def test_what_is_in_a_cell_is_known():
    region = np.ones((HEIGHT, WIDTH), dtype=bool)
    left = without_cells(region, [rectangle(2, 3, 4, 5), rectangle(4, 5, 4, 5)])
    assert left.sum() == HEIGHT * WIDTH - 20 - 20 + 2 * 3
    assert region.all()


def test_outside_of_one_annotated_cell_nothing_is_known_but_a_ring():
    cell = rectangle(8, 10, 3, 4)
    region = outside_of([cell], HEIGHT, WIDTH)
    assert region.area == HEIGHT * WIDTH - 12
    ring = outside_of([cell], HEIGHT, WIDTH, ring=1).to_full(HEIGHT, WIDTH)
    # One pixel above, below, left and right; the corners are 1.4 pixels away.
    assert (~ring).sum() == 12 + 2 * 3 + 2 * 4
    assert outside_of([], HEIGHT, WIDTH, ring=3).area == HEIGHT * WIDTH
    assert outside_of([rectangle(0, 0, HEIGHT, WIDTH)], HEIGHT, WIDTH) is None


@pytest.mark.parametrize(("inside", "counts"), [(0, True), (4, True), (5, True), (6, False), (10, False)])
def test_a_prediction_is_judged_while_at_most_half_of_it_is_in_the_region(inside, counts):
    region = rectangle(0, 0, HEIGHT, 10)
    assert judged([rle(rectangle(3, 10 - inside, 2, 10))], rle(region)) == ([0] if counts else [])


def test_what_matches_a_cell_outside_of_the_region_is_always_judged():
    """All else of the image is the region, and of it as much is predicted as an IoU of one half allows."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        size = int(rng.integers(1, HEIGHT * WIDTH // 2))
        cell, region = np.split(rng.permutation(HEIGHT * WIDTH), [size])
        for found in (size, int(rng.integers((size + 1) // 2, size + 1))):
            predicted, region_mask = np.zeros((2, HEIGHT, WIDTH), dtype=bool)
            predicted.flat[cell[:found]] = predicted.flat[region[: 2 * found - size]] = True
            region_mask.flat[region] = True
            assert predicted.sum() + size - found == 2 * found, "the union is twice what both share"
            assert judged([rle(MaskCrop.from_full(predicted))], rle(MaskCrop.from_full(region_mask))) == [0]


def test_without_a_region_all_is_judged():
    assert judged([rle(rectangle(0, 0, 1, 1))] * 3, None) == [0, 1, 2]
    assert judged([], rle(rectangle(0, 0, 1, 1))) == []


def test_shares_of_boxes_are_counted_pixels():
    rng = np.random.default_rng(2)
    region = rng.random((HEIGHT, WIDTH)) > 0.5
    corners = rng.uniform(-10, 40, (300, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    for box, share in zip(boxes, box_shares(region, boxes), strict=True):
        x0, y0, x1, y1 = np.rint(box).astype(int).clip(0)
        part = region[y0:y1, x0:x1]
        assert share == pytest.approx(part.mean() if part.size else 0)
