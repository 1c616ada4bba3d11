"""Any camera's intensities as 8 bits."""

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.intensity import to_uint8


def test_eight_bit_images_stay_as_they_are():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(to_uint8(image), image)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_other_types_are_stretched(dtype):
    image = np.linspace(1000, 5000, 10000).reshape(100, 100).astype(dtype)
    result = to_uint8(image)
    assert result.dtype == np.uint8
    assert (result.min(), result.max()) == (0, 255)
    assert abs(int(result[50, 50]) - 128) <= 2


def test_the_scale_of_the_camera_does_not_matter():
    image = np.random.default_rng(0).integers(0, 256, (50, 50)).astype(np.uint8)
    stretched = to_uint8(image, "percentile")
    assert np.array_equal(to_uint8(image.astype(np.uint16) * 200 + 77), stretched)


def test_not_a_number_is_dark_and_does_not_spread():
    image = np.linspace(0, 1, 400).reshape(20, 20)
    image[3, 4] = np.nan
    image[5, 6] = np.inf
    result = to_uint8(image)
    assert result[3, 4] == result[5, 6] == 0
    assert result[19, 19] == 255


def test_constant_and_empty_of_meaning():
    assert not to_uint8(np.full((4, 4), 7, np.uint16)).any()
    with pytest.raises(CellSegError, match="finite"):
        to_uint8(np.full((4, 4), np.nan))
    with pytest.raises(CellSegError, match="INTENSITY"):
        to_uint8(np.zeros((4, 4), np.uint8), "histogram")
