"""Grey levels change as documented, masks and points never."""

import cv2
import numpy as np
import pytest

from cellseg_d2.data.augmentations.photometric import (
    BlurTransform,
    BrightnessContrast,
    Focus,
    Illumination,
    IlluminationTransform,
    Invert,
    Noise,
    NoiseTransform,
)
from tests.data.augmentations.scenes import assert_picture, disc_scene

AUGMENTATIONS = {
    "brightness_contrast": BrightnessContrast(),
    "focus": Focus(),
    "noise": Noise((2, 4), (2, 4)),
    "illumination": Illumination((0.1, 0.15), (5, 15)),
}


def test_inverting_twice_is_nothing(scene):
    transform = Invert().get_transform(scene.image)
    np.testing.assert_array_equal(transform.apply_image(scene.image), 255 - scene.image)
    np.testing.assert_array_equal(transform.apply_image(transform.apply_image(scene.image)), scene.image)


@pytest.fixture(scope="module")
def scene():
    return disc_scene()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_only_grey_levels_change(scene, name, tmp_path):
    before = scene.image.copy()
    for seed in range(4):
        np.random.seed(seed)  # noqa: NPY002
        transform = AUGMENTATIONS[name].get_transform(scene.image)
        image = transform.apply_image(scene.image)
        assert image.dtype == np.uint8
        assert image.shape == scene.image.shape
        assert (image != scene.image).any()
        np.testing.assert_array_equal(transform.apply_image(scene.image), image)
        np.testing.assert_array_equal(scene.image, before)
        assert transform.apply_segmentation(scene.labels) is scene.labels
        np.testing.assert_array_equal(transform.apply_coords(scene.centers), scene.centers)
        np.testing.assert_array_equal(transform.inverse().apply_image(image), image)
        if name != "noise":  # whose levels are not comparable from pixel to pixel
            assert_picture(image, scene.labels, tmp_path / f"{name}{seed}.png")


def test_brightness_is_added(scene):
    transform = BrightnessContrast((12, 12), (1, 1), (1, 1)).get_transform(scene.image)
    np.testing.assert_array_equal(transform.apply_image(scene.image), scene.image + 12)


def test_levels_are_cut_off_and_do_not_wrap():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    bright = BrightnessContrast((100, 100), (1, 1), (1, 1)).get_transform(image).apply_image(image)
    np.testing.assert_array_equal(bright.ravel(), np.minimum(np.arange(256) + 100, 255))


def test_contrast_and_gamma_keep_the_mean():
    image = np.random.default_rng(0).normal(120, 15, (100, 100)).astype(np.uint8)
    contrast = BrightnessContrast((0, 0), (1.5, 1.5), (1, 1)).get_transform(image).apply_image(image)
    assert contrast.mean() == pytest.approx(image.mean(), abs=0.3)
    assert contrast.std() == pytest.approx(1.5 * image.std(), rel=0.01)
    image = np.clip(np.random.default_rng(0).normal(120, 40, (100, 100)), 0, 255).astype(np.uint8)
    gamma = BrightnessContrast((0, 0), (1, 1), (1.4, 1.4)).get_transform(image).apply_image(image)
    assert gamma.mean() == pytest.approx(image.mean(), abs=0.5)
    # An exponent above 1 spreads the bright levels and draws the dark ones together.
    low, middle, high = np.percentile(gamma, [2, 50, 98]) - np.percentile(image, [2, 50, 98])
    assert low > middle
    assert high > middle


def test_blur_softens_and_sharpening_undoes_it(scene):
    def sharpness(image):
        return cv2.Laplacian(image, cv2.CV_64F).var()

    blurred = BlurTransform(1.5).apply_image(scene.image)
    np.testing.assert_array_equal(blurred, cv2.GaussianBlur(scene.image, (0, 0), 1.5))
    assert sharpness(BlurTransform(1.5, -0.8).apply_image(blurred)) > 1.5 * sharpness(blurred)
    np.random.seed(0)  # noqa: NPY002
    amounts = np.array([Focus().get_transform(scene.image).amount for _ in range(100)])
    assert 30 < (amounts == 1).sum() < 70
    assert (amounts[amounts != 1] < 0).all()


def test_focus_can_be_one_sided_or_off(scene):
    assert all(Focus(sharpen=(0, 0)).get_transform(scene.image).amount == 1 for _ in range(10))
    assert all(Focus(blur=(0, 0)).get_transform(scene.image).amount < 0 for _ in range(10))
    off = Focus((0, 0), (0, 0)).get_transform(scene.image)
    np.testing.assert_array_equal(off.apply_image(scene.image), scene.image)


@pytest.mark.parametrize("level", [32, 128, 200])
def test_noise_has_the_variance_of_its_formula(level):
    image = np.full((400, 400), level, np.uint8)
    difference = NoiseTransform(3.0, 4.0, seed=1).apply_image(image).astype(float) - level
    assert difference.mean() == pytest.approx(0, abs=0.05)
    assert difference.var() == pytest.approx(9 + 16 * level / 128 + 1 / 12, rel=0.02)


def test_illumination_is_smooth_centred_and_bounded():
    image = np.full((60, 90), 100, np.uint8)
    transform = IlluminationTransform(np.array([1.0, 0, 0, 0, 0]), gain=0.0, offset=20.0)
    ramp = transform.apply_image(image).astype(int)
    np.testing.assert_array_equal(ramp[0], np.rint(100 + np.linspace(-20, 20, 90)))
    assert (ramp == ramp[0]).all()
    np.random.seed(0)  # noqa: NPY002
    for _ in range(20):
        transform = Illumination((0.1, 0.1), (0, 0)).get_transform(image)
        surface = transform.surface(60, 90)
        assert abs(surface.mean()) < 1e-5
        assert np.abs(surface).max() == pytest.approx(1, abs=1e-5)
        assert np.abs(np.diff(surface, n=3, axis=1)).max() < 1e-5
        assert 90 <= transform.apply_image(image).min() <= transform.apply_image(image).max() <= 110
