"""Arrays of any layout and type become grey planes; what could mean several things is refused with its shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.arrays import ArrayError, array_layout, as_stored
from cellseg_d2.images.axes import ONE_PLANE, AxesError, PlaneChoice, choose_planes
from cellseg_d2.images.read import read_image

GREY = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)
STACK = PlaneChoice(stack=True)
RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)


def planes(array, choice=STACK, **options):
    """All grey planes that are wanted."""
    stored = as_stored(array, choice=choice, **options)
    rows, columns = slice(0, stored.layout.height), slice(0, stored.layout.width)
    return [stored.grey(plane.stored[0], rows, columns) for plane in choose_planes(stored.layout, choice)]


def as_grey(array, choice=ONE_PLANE, **options):
    """The only grey plane that is wanted."""
    (plane,) = planes(array, choice, **options)
    return plane


@pytest.mark.parametrize("shape", [(30, 40), (1, 30, 40), (30, 40, 1), (1, 1, 30, 40), (1, 30, 40, 1), (30, 1, 40)])
def test_axes_of_length_one_do_not_matter(shape):
    assert np.array_equal(as_grey(GREY.reshape(shape)), GREY)
    assert np.array_equal(planes(GREY.reshape(shape)), GREY[None])


def test_colours_are_those_of_files(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    expected = read_image(tmp_path / "rgb.png").astype(int)
    opaque = np.full((30, 40, 1), 7, np.uint8)
    for image in (RGB, np.concatenate([RGB, opaque], axis=2), RGB[None], Image.fromarray(RGB)):
        assert np.abs(as_grey(image) - expected).max() <= 1  # Pillow rounds its weights
        assert as_grey(image).dtype == np.uint8
    for place in (0, 1, -2, -3):
        assert np.array_equal(as_grey(np.moveaxis(RGB, 2, place), channel_axis=place), as_grey(RGB))
    assert np.array_equal(as_grey(np.moveaxis(RGB, 2, 0), choice=PlaneChoice(axes="SYX")), as_grey(RGB))


@pytest.mark.parametrize("channel", [1, "1", "green", "Green"])
def test_one_of_the_colours(channel):
    chosen = PlaneChoice(channel=channel)
    assert np.array_equal(as_grey(RGB, choice=chosen), RGB[..., 1])
    assert np.array_equal(as_grey(Image.fromarray(RGB), choice=chosen), RGB[..., 1])
    assert np.array_equal(as_grey(np.moveaxis(RGB, 2, 0), channel_axis=0, choice=chosen), RGB[..., 1])
    with pytest.raises(AxesError, match=r"3 channels \(0 red, 1 green, 2 blue\), of which none is 'violet'"):
        as_grey(RGB, choice=PlaneChoice(channel="violet"))


def test_of_several_channels_one_is_asked_for():
    """Whichever it is: cells may be in any of them."""
    two = np.stack([GREY, 7 + 0 * GREY])
    for array, options in [(two, {}), (np.moveaxis(two, 0, -1), {}), (np.moveaxis(two, 0, 1), {"channel_axis": 1})]:
        for number in (0, 1):
            assert np.array_equal(as_grey(array, choice=PlaneChoice(channel=number), **options), two[number])
        with pytest.raises(AxesError, match="channel=N"):
            as_grey(array, **options)
        with pytest.raises(AxesError, match="of which none is '2'"):
            as_grey(array, choice=PlaneChoice(channel=2), **options)
    with pytest.raises(AxesError, match=r"channel=N for one of 3 channels, channel_axis=0 for colours, stack=True"):
        as_grey(np.moveaxis(RGB, 2, 0))
    assert np.array_equal(as_grey(GREY, choice=PlaneChoice(channel=0)), GREY)
    with pytest.raises(AxesError, match=r"one channel \(0\), of which none is '1'"):
        as_grey(GREY, choice=PlaneChoice(channel=1))


class Named:
    """As of xarray."""

    def __init__(self, array, *dims):
        self.array, self.dims, self.shape, self.dtype = array, dims, array.shape, array.dtype

    def __getitem__(self, index):
        return self.array[index]


def test_arrays_that_name_their_axes():
    cube = np.stack([np.stack([GREY + 10 * t + c for c in range(2)]) for t in range(3)])
    named = Named(cube, "time", "channel", "y", "x")
    assert np.array_equal(planes(named, PlaneChoice(channel=1, stack=True)), cube[:, 1])
    with pytest.raises(AxesError, match="2 channels"):
        planes(named)
    turned = Named(cube.transpose(3, 1, 2, 0), "x", "c", "y", "t")
    assert np.array_equal(planes(turned, PlaneChoice(channel=1, stack=True)), cube[:, 1])
    unnamed = Named(GREY, "dim_0", "dim_1")
    assert np.array_equal(as_grey(unnamed), GREY)


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
    assert np.array_equal(as_grey(torch.tensor(GREY.astype(np.float32), requires_grad=True)), GREY)
    masked = as_grey(np.ma.masked_less(GREY, 5))
    assert np.isnan(masked).sum() == 5
    assert np.array_equal(masked[1:], GREY[1:])
    assert as_grey(np.ma.masked_array(RGB[..., 0])).dtype == np.uint8


def test_pictures_of_pillow_are_what_their_files_are(tmp_path):
    colours = Image.fromarray(RGB)
    for number, picture in enumerate(
        [colours, colours.convert("P"), colours.convert("1"), colours.convert("LA"), Image.fromarray(GREY)]
    ):
        path = tmp_path / f"{number}.png"
        picture.save(path)
        assert np.array_equal(as_grey(picture), read_image(path))


def test_stacks():
    stack = np.stack([GREY + i for i in range(5)])
    assert np.array_equal(planes(stack), stack)
    assert np.array_equal(planes(stack[:3]), stack[:3])  # three planes, not three colours
    assert np.array_equal(planes(stack[:3], channel_axis=0), as_grey(stack[:3], channel_axis=0)[None])
    colours = np.stack([RGB, 255 - RGB])
    grey = np.stack([as_grey(RGB), as_grey(255 - RGB)])
    assert np.array_equal(planes(colours), grey)
    assert np.array_equal(planes(np.moveaxis(colours, -1, 1), channel_axis=1), grey)
    assert np.array_equal(planes(np.moveaxis(colours, -1, 0), channel_axis=0), grey)
    assert np.array_equal(planes(RGB), as_grey(RGB)[None])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 30, 40)), "stack of shape 9 × 30 × 40, and nothing tells whether axis 0 is that of channels or"),
        (np.zeros((3, 30, 4)), "3 × 30 × 4 could have its channels first or last"),
        (np.zeros((5, 30, 40, 3)), "stack of shape 5 × 30 × 40 × 3"),
        (np.zeros((5, 6, 30, 40)), "stack of shape 5 × 6 × 30 × 40, .* name them all with axes='TCYX'"),
        (np.zeros((5, 6, 7, 30, 40)), "5 × 6 × 7 × 30 × 40"),
        (np.zeros(30), "shape of the array is 30"),
        (7, "of a single number"),
        (np.zeros((0, 40)), "0 × 40 holds no pixels"),
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
    with pytest.raises(AxesError, match=r"30 channels \(0 to 29\)"):
        as_grey(RGB, channel_axis=0)
    with pytest.raises(ArrayError, match="no rows and columns"):
        as_grey(GREY[:4], channel_axis=0)
    with pytest.raises(AxesError, match="nothing tells what its axes are"):
        planes(np.zeros((5, 6, 30, 40)), PlaneChoice(channel=1, stack=True))
    with pytest.raises(AxesError, match="2 × 3 × 9, to which the axes CZYX do not fit"):
        planes(np.zeros((2, 3, 9)), PlaneChoice(axes="CZYX"))
    with pytest.raises(AxesError, match="5 values a pixel along S"):
        planes(np.zeros((5, 3, 9)), PlaneChoice(axes="SYX"))


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=5), st.booleans())
def test_every_shape_is_understood_or_refused(shape, stack):
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    choice = PlaneChoice(stack=stack)
    try:
        layout = array_layout(shape, choice=choice)
        wanted = choose_planes(layout, choice)
    except AxesError:
        with pytest.raises(AxesError, match=" × ".join(map(str, shape)) + "|has 2 channels"):
            planes(array, choice)
        return
    found = planes(array, choice)
    assert len(found) == len(wanted)
    assert all(plane.shape == (layout.height, layout.width) for plane in found)
    assert layout.names.index("Y") < layout.names.index("X")
    if layout.length("S") == 1:  # then every value is in one plane, and in the order of the array
        assert np.array_equal(np.concatenate([plane.ravel() for plane in found]), array.ravel())
