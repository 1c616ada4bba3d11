"""Whatever moves pixels: image, masks, boxes and points stay together, and nothing is invented."""

import detectron2.data.transforms as T
import numpy as np
import pytest

from cellseg_d2.data.augmentations.crops import CellCrop, RotateZoomCrop, Rotation, ScaleJitter
from cellseg_d2.data.augmentations.elastic import Elastic
from cellseg_d2.data.augmentations.quarter_turn import QuarterTurn
from tests.data.augmentations.scenes import DARK, assert_agreement, assert_picture, centroids, disc_scene

AUGMENTATIONS = {
    "rotation": Rotation((-180, 180)),
    "rotation_reflect": Rotation((-180, 180), max_zoom=1.0),
    "rotation_background": Rotation((-180, 180), max_zoom=1.0, outside="background"),
    "rotate_zoom_crop": RotateZoomCrop(zoom=(0.8, 1.6), size=(128, 160), cell_probability=0.5),
    "sheared": RotateZoomCrop(zoom=(0.9, 1.3), size=(128, 128), aspect=(0.8, 1.25), shear=(-10, 10)),
    "scale_jitter": ScaleJitter((0.8, 1.4)),
    "cell_crop": CellCrop((100, 120)),
    "quarter_turn": QuarterTurn(),
    "elastic": Elastic((3, 6), (25, 40)),
}


@pytest.fixture(scope="module")
def scene():
    return disc_scene()


def draw(augmentation, scene, seed):
    np.random.seed(seed)  # noqa: NPY002
    aug_input = T.AugInput(scene.image, boxes=scene.boxes.copy())
    return aug_input, augmentation(aug_input)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_masks_are_where_the_image_is(scene, name, tmp_path):
    for seed in range(6):
        aug_input, transform = draw(AUGMENTATIONS[name], scene, seed)
        labels = transform.apply_segmentation(scene.labels)
        assert aug_input.image.dtype == np.uint8
        assert aug_input.image.shape == labels.shape
        # The discs alone are bright, so the fill of the background cannot hide an error.
        assert_agreement(aug_input.image, labels)
        assert_picture(aug_input.image, labels, tmp_path / f"{name}{seed}.png")


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "rotation_reflect"])
def test_nothing_is_shifted(scene, name):
    """A mirrored cell and its original have one label, and no centre that means anything, hence the exception."""
    in_masks, in_images, moved_centers = [], [], []
    for seed in range(20):
        aug_input, transform = draw(AUGMENTATIONS[name], scene, seed)
        expected = transform.apply_coords(scene.centers.copy())
        for label, pair in centroids(aug_input.image, transform.apply_segmentation(scene.labels)).items():
            in_masks.append(pair[0])
            in_images.append(pair[1])
            moved_centers.append(expected[label - 1])
    assert len(in_masks) >= 20
    for others in (in_images, moved_centers):
        errors = np.array(in_masks) - others
        # Taking the nearest pixel can move all of a small disc's edge by half a pixel, but to no side in particular.
        assert np.abs(errors).max() < (0.9 if name == "elastic" else 0.55)
        assert np.abs(errors.mean(axis=0)).max() < 0.03


@pytest.mark.parametrize("augmentation", [Rotation((10, 80)), RotateZoomCrop((-80, -10), (0.8, 1.6), (190, 190))])
def test_a_rotated_disc_is_centred_to_a_tenth_of_a_pixel(augmentation):
    scene = disc_scene(200, 200, spacing=180, radii=(40, 40), jitter=0)
    measured = 0
    for seed in range(30):
        aug_input, transform = draw(augmentation, scene, seed)
        found = centroids(aug_input.image, transform.apply_segmentation(scene.labels)).values()  # none if it is cut
        for in_mask, in_image in found:
            np.testing.assert_allclose(in_mask, in_image, atol=0.1)
            np.testing.assert_allclose(in_mask, transform.apply_coords(scene.centers)[0], atol=0.1)
            measured += 1
    assert measured >= 20


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, bool])
def test_labels_keep_type_and_values(scene, name, dtype):
    _, transform = draw(AUGMENTATIONS[name], scene, 3)
    labels = scene.labels.astype(dtype) * (dtype(1) if dtype is bool else np.array(7, dtype))
    moved = transform.apply_segmentation(labels)
    assert moved.dtype == dtype
    assert set(np.unique(moved)) <= set(np.unique(labels))
    fortran = transform.apply_segmentation(np.asfortranarray(labels))
    np.testing.assert_array_equal(moved, fortran)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_transform_gives_the_same_each_time(scene, name):
    aug_input, transform = draw(AUGMENTATIONS[name], scene, 5)
    np.testing.assert_array_equal(transform.apply_image(scene.image), aug_input.image)
    again, _ = draw(AUGMENTATIONS[name], scene, 5)
    np.testing.assert_array_equal(again.image, aug_input.image)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_black_is_invented(scene, name):
    for seed in range(6):
        aug_input, _ = draw(AUGMENTATIONS[name], scene, seed)
        assert aug_input.image.min() >= DARK - 2


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_without_boxes_are_taken(scene, name):
    aug_input = T.AugInput(scene.image)
    AUGMENTATIONS[name](aug_input)
    assert aug_input.image.ndim == 2


def test_quarter_turns_are_lossless(scene):
    seen = set()
    for seed in range(20):
        aug_input, transform = draw(QuarterTurn(), scene, seed)
        turns = getattr(transform, "turns", 0)
        seen.add(turns)
        np.testing.assert_array_equal(aug_input.image, np.rot90(scene.image, turns))
        back = transform.inverse()
        np.testing.assert_array_equal(back.apply_image(aug_input.image), scene.image)
        np.testing.assert_allclose(back.apply_coords(transform.apply_coords(scene.centers)), scene.centers)
    assert seen == {0, 1, 2, 3}


def test_scale_jitter_never_pads(scene):
    sizes = set()
    for seed in range(30):
        aug_input, transform = draw(ScaleJitter((0.5, 2.0)), scene, seed)
        assert transform.inside
        assert aug_input.image.shape <= scene.image.shape
        sizes.add(aug_input.image.shape)
    assert len(sizes) > 5  # those that became smaller stay smaller
    assert scene.image.shape in sizes


def test_cell_crops_are_pixels_of_the_image_and_hold_a_cell(scene):
    for seed in range(50):
        aug_input, transform = draw(CellCrop((70, 90)), scene, seed)
        assert aug_input.image.shape == (70, 90)
        window = slice(transform.y0, transform.y0 + 70), slice(transform.x0, transform.x0 + 90)
        np.testing.assert_array_equal(aug_input.image, scene.image[window])
        counts = np.bincount(transform.apply_segmentation(scene.labels).ravel(), minlength=scene.labels.max() + 1)
        assert (counts == np.bincount(scene.labels.ravel()))[1:].any()


def test_cell_crops_of_small_images_are_the_image(scene):
    aug_input, _ = draw(CellCrop((1000, 0)), scene, 0)
    np.testing.assert_array_equal(aug_input.image, scene.image)
