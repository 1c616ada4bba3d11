"""Rotations there and back, and what they show of the outside."""

import numpy as np
import pytest

from cellseg_d2.benchmarks.rotation import (
    MARKER,
    measure_outside,
    measure_round_trips,
    rotation_on_large_canvas,
    rotations,
    sample_with_marker,
)
from cellseg_d2.data.augmentations.crops import RotateZoomCrop
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco


def disc(x, y, radius, height, width):
    rows, columns = np.mgrid[:height, :width] + 0.5
    return crop_to_coco(MaskCrop.from_full((columns - x) ** 2 + (rows - y) ** 2 <= radius**2), height, width)


@pytest.fixture
def entries():
    """Discs, also at the border and overlapping; two sizes of images."""
    result = []
    for height, width in ((90, 121), (64, 64)):
        masks = [disc(x, y, 14, height, width) for x, y in ((20, 25), (30, 30), (width - 10, height - 8))]
        cells = [{"segmentation": mask, "bbox": [10, 12, 25, 25]} for mask in masks]
        result.append({"height": height, "width": width, "annotations": cells})
    return result


@pytest.mark.parametrize("angle", [0, 33, 90, 145.5, -179])
def test_the_large_canvas_holds_the_whole_image(angle):
    size = (50, 71)
    transform = rotation_on_large_canvas(size, angle)
    corners = transform.apply_coords(np.array([[0, 0], [71, 0], [0, 50], [71, 50]]))
    assert corners.min() > -1e-9
    assert (corners <= np.array(transform.output_size[::-1]) + 1e-9).all()
    assert max(transform.output_size) < np.hypot(*size) + 1


def test_masks_come_back(entries):
    trips = measure_round_trips(entries)
    assert trips["new"].cells == trips["stock"].cells == 6
    assert trips["new"].iou > 0.94
    assert trips["new"].score > 0.85
    # The same places fetched in OpenCV's way; only the rounding may differ.
    assert trips["stock, exact inverse"].iou == pytest.approx(trips["new"].iou, abs=0.02)
    assert trips["stock"].iou <= trips["stock, exact inverse"].iou + 0.005


def test_shipped_rotations_stay_inside_and_stock_ones_do_not():
    cells = [{"bbox": [x, y, 30, 20]} for x, y in ((0, 0), (300, 200), (674, 500))]
    results = measure_outside(rotations(), [{"height": 520, "width": 704, "annotations": cells}], draws=12)
    for name, result in results.items():
        if name.startswith("stock"):
            assert result.clean < 0.1
            assert 0.02 < result.pixels < 0.6
            assert result.agreeing is None
        else:
            assert (result.clean, result.pixels, result.agreeing) == (1, 0, 1), name


def test_an_augmentation_that_looks_outside_is_found(entries):
    """Without room to zoom, reflection is needed: the independent sampling must see it."""
    results = measure_outside({"turned": RotateZoomCrop((40, 50), (1.0, 1.0))}, entries, draws=4)
    assert results["turned"].clean == 0
    assert results["turned"].pixels > 0.05


def test_the_marker_enters_with_the_first_step_outside():
    image = np.full((6, 8), 100)
    same = np.array([[1, 0, 0], [0, 1, 0]], dtype=float)
    assert np.array_equal(sample_with_marker(image, same, image.shape), image)
    shifted = same + np.array([[0, 0, 0.02], [0, 0, 0]])
    sampled = sample_with_marker(image, shifted, image.shape)
    assert np.allclose(sampled[:, :-1], 100)
    assert np.allclose(sampled[:, -1], 0.98 * 100 + 0.02 * MARKER)
