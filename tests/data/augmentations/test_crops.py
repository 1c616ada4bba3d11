"""Rotated crops: nothing from outside the image wherever that is possible."""

import numpy as np
import pytest
from scipy import ndimage

from cellseg_d2.data.augmentations.crops import RotateZoomCrop, Rotation
from cellseg_d2.data.augmentations.placement import affine_matrix, center_range, draw_center, least_zoom, linear_map
from cellseg_d2.data.augmentations.warp import AffineTransform
from cellseg_d2.errors import CellSegError
from tests.data.augmentations.scenes import disc_scene

MARKER, FRAME = 1e6, 60


def outside_seen(transform: AffineTransform) -> float:
    """How much of the surroundings of the image gets into the output, by an independent interpolation."""
    framed = np.pad(np.zeros(transform.input_size), FRAME, constant_values=MARKER)
    h, w = transform.output_size
    y, x = np.mgrid[:h, :w] + 0.5
    points = transform.matrix @ np.stack([x.ravel(), y.ravel(), np.ones(h * w)])
    return ndimage.map_coordinates(framed, points[::-1] - 0.5 + FRAME, order=1, mode="nearest").max()


def test_nothing_from_outside_is_seen_whenever_a_crop_fits():
    generator = np.random.default_rng(0)
    np.random.seed(0)  # noqa: NPY002
    fitting = 0
    for _ in range(3000):
        input_size = tuple(generator.integers(12, 60, 2).tolist())
        output_size = tuple(generator.integers(2, 40, 2).tolist())
        augmentation = RotateZoomCrop(
            zoom=(0.7, 1.5), size=output_size, aspect=(0.8, 1.25), shear=(-15, 15), cell_probability=0.5
        )
        boxes = generator.uniform(0, 10, (5, 2))
        boxes = np.concatenate([boxes, boxes + 5], axis=1)
        transform = augmentation.get_transform(np.zeros(input_size, np.uint8), boxes)
        linear = transform.matrix[:, :2]
        fits = least_zoom(linear * transform.zoom, input_size, output_size) <= 1.5
        assert transform.inside == fits
        assert (outside_seen(transform) < 1e-3) == fits
        fitting += fits
    assert 1000 < fitting < 2900  # both cases were met


def test_the_warp_looks_where_the_matrix_says():
    generator = np.random.default_rng(2)
    image = generator.integers(0, 256, (50, 70), dtype=np.uint8)
    for _ in range(20):
        transform = RotateZoomCrop(zoom=(1.0, 2.0), size=(20, 24)).get_transform(image, None)
        y, x = np.mgrid[:20, :24] + 0.5
        points = transform.matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
        expected = ndimage.map_coordinates(image.astype(float), points[::-1] - 0.5, order=1, mode="nearest")
        # OpenCV may round places to 1/32 pixel; neighbours differ by up to 255 here.
        assert np.abs(transform.apply_image(image).ravel() - expected).mean() < 3
        smooth = ndimage.gaussian_filter(image.astype(np.float32), 3)
        expected = ndimage.map_coordinates(smooth, points[::-1] - 0.5, order=1, mode="nearest")
        np.testing.assert_allclose(transform.apply_image(smooth).ravel(), expected, atol=0.6)


def test_the_least_zoom_is_the_least():
    generator = np.random.default_rng(1)
    for _ in range(200):
        linear = linear_map(generator.uniform(-180, 180), generator.uniform(0.8, 1.2), generator.uniform(-10, 10))
        sizes = (40, 55), (23, 31)
        zoom = least_zoom(linear, *sizes)
        low, high = center_range(linear / zoom, *sizes)
        assert (high - low).min() == pytest.approx(0, abs=1e-9)  # exactly one place along one axis
        for factor, fits in ((1.001, True), (0.999, False)):
            low, high = center_range(linear / (zoom * factor), *sizes)
            transform = AffineTransform(affine_matrix(linear / (zoom * factor), low, sizes[1]), *sizes)
            assert transform.inside == fits


def test_known_least_zooms():
    assert least_zoom(linear_map(0), (100, 200), (100, 200)) == 1
    assert least_zoom(linear_map(90), (101, 201), (101, 201)) == 2
    assert least_zoom(linear_map(45), (101, 101), (101, 101)) == pytest.approx(2**0.5)
    assert least_zoom(linear_map(30), (1, 50), (1, 20)) == np.inf
    assert least_zoom(linear_map(0), (1, 50), (1, 20)) == pytest.approx(19 / 49)


@pytest.mark.parametrize("angle", [-90, 0, 90, 180, 270, 360])
def test_multiples_of_90_degrees_move_pixels_without_loss(angle):
    image = np.random.default_rng(0).integers(0, 256, (41, 60), dtype=np.uint8)
    turned = np.rot90(image, angle // 90)
    whole = RotateZoomCrop((angle, angle), (1, 1), turned.shape).get_transform(image, None)
    np.testing.assert_array_equal(whole.apply_image(image), turned)
    np.testing.assert_array_equal(whole.apply_segmentation(image), turned)
    for _ in range(10):
        crop = RotateZoomCrop((angle, angle), (1, 1), (20, 23)).get_transform(image, None)
        assert crop.inside
        x, y = np.rint(crop.apply_coords(np.array([[0.0, 0.0], [60.0, 41.0]])).min(axis=0)).astype(int)
        np.testing.assert_array_equal(crop.apply_image(image), turned[-y : 20 - y, -x : 23 - x])


def test_positive_angles_turn_counter_clockwise():
    image = np.zeros((101, 101), np.uint8)
    image[48:53, 80:90] = 255  # to the right of the middle
    turned = RotateZoomCrop((60, 60), (1, 1)).get_transform(image, None).apply_segmentation(image)
    y, x = np.argwhere(turned).mean(axis=0) - 50
    assert np.degrees(np.arctan2(-y, x)) == pytest.approx(60, abs=1)


def test_rotation_keeps_the_size_and_zooms_no_more_than_needed():
    image = np.zeros((520, 704), np.uint8)
    for angle in (3.0, 45.0, 90.0, 143.0):
        transform = Rotation((angle, angle)).get_transform(image, None)
        assert transform.inside
        assert transform.output_size == image.shape
        assert transform.zoom == pytest.approx(max(1, least_zoom(linear_map(angle), image.shape, image.shape)))
    assert Rotation((180, 180)).get_transform(image, None).exact


def test_reflection_mirrors_image_and_masks_alike():
    image = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    matrix = np.array([[1.0, 0, -12], [0, 1, 7]])
    transform = AffineTransform(matrix, image.shape, (60, 50), "reflect")
    expected = np.pad(image, ((0, 37), (12, 0)), mode="reflect")[7:67, :50]
    np.testing.assert_array_equal(transform.apply_image(image), expected)
    np.testing.assert_array_equal(transform.apply_segmentation(image), expected)
    assert transform.splits_labels
    assert not transform.inside


def test_a_mirrored_cell_has_its_originals_label():
    labels = np.zeros((30, 40), np.uint16)
    labels[10:14, 3:6] = 9
    moved = AffineTransform(np.array([[1.0, 0, -12], [0, 1, 0]]), labels.shape, (30, 40)).apply_segmentation(labels)
    parts, count = ndimage.label(moved == 9)
    assert count == 2
    assert np.bincount(parts.ravel())[1:].tolist() == [12, 12]


def test_the_background_goes_on_outside_without_cells():
    generator = np.random.default_rng(3)
    slope = np.linspace(90, 130, 200)[None, :]
    clean = slope + generator.normal(0, 4, (160, 200))
    image, labels = clean.copy(), np.zeros((160, 200), np.uint16)
    for k, (y, x) in enumerate([(40, 60), (90, 150), (120, 40), (30, 150)]):
        image[y - 12 : y + 12, x - 12 : x + 12] = generator.normal(200, 30, (24, 24))
        labels[y - 12 : y + 12, x - 12 : x + 12] = k + 1
    image = np.clip(image, 0, 255).astype(np.uint8)
    matrix = np.array([[1.0, 0, -60], [0, 1, -40]])
    transform = AffineTransform(matrix, image.shape, (240, 320), "background", seed=4)
    result, moved = transform.apply_image(image), transform.apply_segmentation(labels)
    np.testing.assert_array_equal(result[40:200, 60:260], image)
    np.testing.assert_array_equal(moved[40:200, 60:260], labels)
    assert moved.sum() == labels.sum()
    assert not transform.splits_labels
    left, right = result[:, :50].astype(float), result[:, 270:].astype(float)
    assert left.mean() == pytest.approx(95, abs=6)
    assert right.mean() == pytest.approx(125, abs=6)
    assert left.std() == pytest.approx(4, rel=0.3)
    np.testing.assert_array_equal(transform.apply_image(image), result)


def test_the_way_back_restores_points_and_masks():
    scene = disc_scene()
    np.random.seed(1)  # noqa: NPY002
    for _ in range(5):
        transform = RotateZoomCrop(zoom=(1.5, 2.0), size=(240, 320)).get_transform(scene.image, None)
        back = transform.inverse()
        points = transform.apply_coords(scene.centers)
        np.testing.assert_allclose(back.apply_coords(points), scene.centers)
        returned = back.apply_segmentation(transform.apply_segmentation(scene.labels))
        seen = back.apply_segmentation(np.ones(transform.output_size, np.uint8)) > 0
        union = ((returned > 0) | (scene.labels > 0))[seen].sum()
        assert (returned == scene.labels)[seen & (scene.labels > 0)].sum() / union > 0.93


@pytest.mark.parametrize(("angle", "least"), [(0.0, 1.0), (37.0, 0.97)])
def test_crops_around_cells_hold_a_whole_cell(angle, least):
    # Few small cells, one of them in a corner, where a rotated crop cannot reach.
    centers = np.array([[6.0, 6.0], [150.0, 60.0], [200.0, 190.0]])
    boxes = np.concatenate([centers - 5, centers + 5], axis=1)
    size, crop = (240, 320), (64, 64)
    linear = linear_map(angle)
    np.random.seed(2)  # noqa: NPY002

    def share(probability):
        held = []
        for _ in range(400):
            center = draw_center(linear, size, crop, boxes, probability)
            transform = AffineTransform(affine_matrix(linear, center, crop), size, crop)
            moved = transform.apply_box(boxes)
            held.append(((moved[:, :2] >= -1e-6) & (moved[:, 2:] <= 64 + 1e-6)).all(axis=1))
            assert transform.inside
        return np.array(held)

    held = share(1.0)
    assert held.any(axis=1).mean() >= least
    reachable = held.any(axis=0)
    assert reachable.sum() == (3 if angle == 0 else 2)
    assert held[:, reachable].mean(axis=0).min() > 0.8 / reachable.sum()  # each as often as the others
    assert share(0.0).any(axis=1).mean() < 0.3


def test_cells_outside_the_image_are_not_aimed_at():
    boxes = np.array([[-50.0, 10, -40, 20], [90, 90, 100, 100]])
    for _ in range(20):
        center = draw_center(np.eye(2), (200, 200), (40, 40), boxes, 1.0)
        assert np.abs(center - 95).max() <= 15


def test_an_unknown_policy_is_an_error():
    with pytest.raises(CellSegError, match="reflect or background"):
        AffineTransform(np.eye(2, 3), (5, 5), (5, 5), "black")


def test_an_image_of_another_size_is_an_error():
    transform = AffineTransform(np.eye(2, 3), (5, 5), (5, 5))
    with pytest.raises(ValueError, match=r"\(5, 5\)"):
        transform.apply_image(np.zeros((6, 5), np.uint8))
