"""Arrays of any layout and type become grey planes; what could mean several things is refused with its shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.arrays import ArrayError, as_grey, as_planes, image_axes
from cellseg_d2.images.read import read_image

GREY = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(30, 40), (1, 30, 40), (30, 40, 1), (1, 1, 30, 40), (1, 30, 40, 1), (30, 1, 40)])
def test_axes_of_length_one_do_not_matter(shape):
    assert np.array_equal(as_grey(GREY.reshape(shape)), GREY)
    assert np.array_equal(as_planes(GREY.reshape(shape)), GREY[None])


def test_colours_first_or_last_are_those_of_files(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    expected = read_image(tmp_path / "rgb.png").astype(int)
    opaque = np.full((30, 40, 1), 7, np.uint8)
    for image in (RGB, np.moveaxis(RGB, 2, 0), np.concatenate([RGB, opaque], axis=2), RGB[None]):
        assert np.abs(as_grey(image) - expected).max() <= 1  # Pillow rounds its weights
        assert as_grey(image).dtype == np.uint8
    assert np.array_equal(as_grey(np.moveaxis(RGB, 2, 1), channel_axis=1), as_grey(RGB))
    assert np.array_equal(as_grey(np.moveaxis(RGB, 2, 1), channel_axis=-2), as_grey(RGB))


def test_of_two_channels_the_first_is_taken():
    two = np.stack([GREY, 7 + 0 * GREY])
    assert np.array_equal(as_grey(two), GREY)
    assert np.array_equal(as_grey(np.moveaxis(two, 0, -1)), GREY)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("bool", "uint8"),
        ("uint8", "uint8"),
        (">u2", "uint16"),
        ("int8", "uint16"),
        ("int64", "uint16"),
        ("float16", "float32"),
        ("float64", "float32"),
    ],
)
def test_types(dtype, expected):
    values = np.arange(12).reshape(3, 4) % 2
    grey = as_grey(values.astype(dtype))
    assert grey.dtype == np.dtype(expected)
    assert np.array_equal(grey, values * 255 if dtype == "bool" else values)


def test_large_and_negative_integers_become_float():
    assert np.array_equal(as_grey(GREY.astype(np.int32) - 50), GREY.astype(np.float32) - 50)
    assert as_grey(GREY.astype(np.uint32) * 1000).dtype == np.float32


def test_lists_tensors_and_masked_arrays():
    torch = pytest.importorskip("torch")
    assert np.array_equal(as_grey(GREY.tolist()), GREY)
    assert np.array_equal(as_grey(torch.tensor(GREY.astype(np.int32))), GREY)
    masked = as_grey(np.ma.masked_less(GREY, 5))
    assert np.isnan(masked).sum() == 5
    assert np.array_equal(masked[1:], GREY[1:])
    assert as_grey(np.ma.masked_array(RGB[..., 0])).dtype == np.uint8


def test_stacks():
    stack = np.stack([GREY + i for i in range(5)])
    assert np.array_equal(as_planes(stack), stack)
    assert np.array_equal(as_planes(stack[:3]), stack[:3])  # three planes, not three colours
    assert np.array_equal(as_planes(stack[:3], channel_axis=0), as_grey(stack[:3])[None])
    colours = np.stack([RGB, 255 - RGB])
    grey = np.stack([as_grey(RGB), as_grey(255 - RGB)])
    assert np.array_equal(as_planes(colours), grey)
    assert np.array_equal(as_planes(np.moveaxis(colours, -1, 1), channel_axis=1), grey)
    assert np.array_equal(as_planes(np.moveaxis(colours, -1, 0), channel_axis=0), grey)
    assert np.array_equal(as_planes(RGB), as_grey(RGB)[None])
    mixed = np.stack([GREY, GREY]).astype(np.int32)
    mixed[1] -= 100  # one type for all planes
    assert as_planes(mixed).dtype == np.float32


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 30, 40)), "9 × 30 × 40 is that of a stack of 9 planes"),
        (np.zeros((3, 30, 4)), "3 × 30 × 4 could have its channels first or last"),
        (np.zeros((5, 30, 40, 3)), "stack of 5 images in colours"),
        (np.zeros((5, 6, 30, 40)), "5 × 6 × 30 × 40 has four axes"),
        (np.zeros((5, 6, 7, 30, 40)), "5 × 6 × 7 × 30 × 40"),
        (np.zeros(30), "shape of this array is 30"),
        (7, "a single number"),
        (np.zeros((0, 40)), "0 × 40 holds no pixels"),
        (np.full((3, 4), np.nan), "3 × 4 has no finite pixel"),
        (np.zeros((3, 4), complex), "complex128"),
        (np.full((3, 4), None), "object"),
        ("cells.png", "read files with read_image"),
        ([[1, 2], [3]], "cannot become a NumPy array"),
    ],
)
def test_what_is_refused(image, words):
    with pytest.raises(CellSegError, match=words):
        as_grey(image)


def test_refused_channels_and_stacks():
    with pytest.raises(ArrayError, match="channel_axis is 3"):
        as_grey(RGB, channel_axis=3)
    with pytest.raises(ArrayError, match="has 30 channels"):
        as_grey(RGB, channel_axis=0)
    with pytest.raises(ArrayError, match="no rows and columns"):
        as_grey(GREY[:4], channel_axis=0)
    with pytest.raises(ArrayError, match="four axes"):
        as_planes(np.zeros((5, 6, 30, 40)))
    with pytest.raises(ArrayError, match="plane 1 of the stack of shape 2 × 3 × 9"):
        as_planes(np.stack([np.zeros((3, 9)), np.full((3, 9), np.inf)]))


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.booleans())
def test_every_shape_is_understood_or_refused(shape, stack):
    array = np.zeros(shape, np.uint8)
    read = as_planes if stack else as_grey
    try:
        axes = image_axes(shape, stack=stack)
    except ArrayError:
        with pytest.raises(ArrayError, match=" × ".join(map(str, shape))):
            read(array)
        return
    named = [axis for axis in (axes.planes, axes.rows, axes.columns, axes.channels) if axis is not None]
    assert len(set(named)) == len(named)
    assert all(shape[axis] == 1 for axis in range(len(shape)) if axis not in named)
    assert axes.rows < axes.columns
    assert read(array).shape[-2:] == (shape[axes.rows], shape[axes.columns])
