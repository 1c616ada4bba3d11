"""Elastic deformation: one-to-one, inside the image, as strong as asked for."""

import numpy as np
import pytest

from cellseg_d2.data.augmentations.elastic import STEEPEST, Elastic, ElasticTransform, random_displacement


@pytest.mark.parametrize("size", [(200, 300), (64, 50), (7, 9), (1, 12)])
@pytest.mark.parametrize(("strength", "smoothness"), [(3, 30), (8, 20), (50, 10), (5, 0.5)])
def test_no_place_is_outside_and_nothing_folds(size, strength, smoothness):
    for seed in range(5):
        field = random_displacement(size, strength, smoothness, np.random.default_rng(seed))
        columns, rows = ElasticTransform(field).places
        assert columns.min() >= 0
        assert columns.max() <= size[1] - 1
        assert rows.min() >= 0
        assert rows.max() <= size[0] - 1
        assert (np.diff(columns, axis=1) > 0.9 * (1 - STEEPEST)).all()
        assert (np.diff(rows, axis=0) > 0.9 * (1 - STEEPEST)).all()


def test_a_gentle_field_is_as_strong_as_asked_for():
    for seed in range(5):
        field = random_displacement((300, 400), 5.0, 50.0, np.random.default_rng(seed))
        assert np.hypot(*field).max() == pytest.approx(5, rel=1e-5)


def test_a_violent_field_is_held_back():
    field = random_displacement((300, 400), 60.0, 20.0, np.random.default_rng(0))
    assert 5 < np.hypot(*field).max() < 30


def test_no_strength_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    transform = Elastic((0, 0)).get_transform(image)
    np.testing.assert_array_equal(transform.apply_image(image), image)
    np.testing.assert_array_equal(transform.apply_segmentation(image), image)


def test_points_are_where_the_image_shows_them():
    size = (200, 300)
    field = random_displacement(size, 8.0, 25.0, np.random.default_rng(3))
    transform = ElasticTransform(field)
    # Every pixel p shows the place p + d(p), so that place must go back to p.
    y, x = np.mgrid[: size[0] : 7, : size[1] : 7]
    shown = np.stack([places[::7, ::7].ravel() for places in transform.places], axis=1) + 0.5
    expected = np.stack([x.ravel(), y.ravel()], axis=1) + 0.5
    assert np.abs(shown - expected).max() > 4
    np.testing.assert_allclose(transform.apply_coords(shown), expected, atol=0.005)


def test_points_are_not_changed_in_place_and_none_is_fine():
    transform = Elastic((5, 5)).get_transform(np.zeros((50, 60), np.uint8))
    points = np.array([[10.0, 20.0], [-5.0, 70.0]])
    before = points.copy()
    assert np.isfinite(transform.apply_coords(points)).all()
    np.testing.assert_array_equal(points, before)
    assert transform.apply_coords(np.zeros((0, 2))).shape == (0, 2)
