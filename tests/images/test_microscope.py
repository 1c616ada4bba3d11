"""Files of microscopes' programs have the planes, names and pixel sizes that were written to them."""

import importlib.util
import logging

import numpy as np
import pytest

from cellseg_d2.images.axes import AxesError, PlaneChoice
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.lazy import open_stored
from cellseg_d2.images.microscope import MICROSCOPE_SUFFIXES
from cellseg_d2.images.pixel_size import PixelSize, read_pixel_size
from cellseg_d2.images.read import find_images
from tests.images.microscope_files import write_czi, write_lif, write_nd2
from tests.images.test_axes import CHOICES, CUBE, planes

PACKAGES = {".czi": "pylibCZIrw", ".lif": "liffile", ".nd2": "nd2"}
WRITERS = {
    ".czi": write_czi,
    ".lif": lambda path, array, names="TZCYX": write_lif(path, {"Series001": array}, names),
    ".nd2": write_nd2,
}
PIXELS = {".czi": PixelSize(0.5, 0.25), ".lif": PixelSize(0.5, 0.25), ".nd2": PixelSize(0.5, 0.5)}


@pytest.fixture(params=WRITERS)
def suffix(request):
    pytest.importorskip(PACKAGES[request.param])
    return request.param


@pytest.fixture
def path(tmp_path, suffix):
    return tmp_path / f"a{suffix}"


@pytest.mark.parametrize("chosen", CHOICES)
def test_planes(path, suffix, chosen):
    WRITERS[suffix](path, CUBE)
    choice, expected = CHOICES[chosen]
    found = planes(path, choice)
    assert next(iter(found)) == ("_t000" if choice.projection else "_t000_z000")
    assert np.array_equal(np.stack(list(found.values())), expected)


def test_questions_and_pixel_sizes(path, suffix):
    WRITERS[suffix](path, CUBE[0, 0], "CYX")
    assert read_pixel_size(path).x_um == pytest.approx(PIXELS[suffix].x_um)
    assert read_pixel_size(path).y_um == pytest.approx(PIXELS[suffix].y_um)
    with pytest.raises(AxesError, match=r"2 channels \(0 DAPI, 1 GFP\)"):
        planes(path, PlaneChoice())
    with pytest.raises(AxesError, match=r"one scene .* of which none is '1'"):
        planes(path, PlaneChoice(scene=1))
    assert np.array_equal(planes(path, PlaneChoice(axes="ZYX", projection="max"))[""], CUBE[0, 0].max(axis=0))
    with pytest.raises(AxesError, match="Y, X and S stay what they are"):
        planes(path, PlaneChoice(axes="YXC"))


def test_a_single_plane(path, suffix):
    WRITERS[suffix](path, CUBE[0, 0, 0].astype(np.uint8), "YX")
    assert np.array_equal(planes(path, PlaneChoice())[""], CUBE[0, 0, 0].astype(np.uint8))


def test_several_images(path, suffix):
    if suffix == ".czi":
        write_czi(path, CUBE[0, 0, 0], "YX", scenes=2)
    elif suffix == ".lif":
        write_lif(path, {"A": CUBE[0, 0, 0], "B": CUBE[0, 0, 0] + 1}, "YX")
    else:
        write_nd2(path, np.stack([CUBE[0, 0, 0], CUBE[0, 0, 0] + 1]), "PYX", positions=("A", "B"))
    with pytest.raises(AxesError, match=r"holds 2 images \(0.* 1.*\): choose one with --scene N"):
        planes(path, PlaneChoice())
    for scene in (0, 1):
        assert np.array_equal(planes(path, PlaneChoice(scene=scene))[""], CUBE[0, 0, 0] + scene)
    if suffix != ".czi":  # Zeiss' library writes no names of scenes
        assert np.array_equal(planes(path, PlaneChoice(scene="b"))[""], CUBE[0, 0, 0] + 1)


def test_positions_between_other_axes(tmp_path):
    pytest.importorskip("nd2")
    write_nd2(tmp_path / "a.nd2", CUBE, "TPCYX", positions=("", "", ""))
    found = planes(tmp_path / "a.nd2", PlaneChoice(scene=2, channel=1, stack=True))
    assert np.array_equal(list(found.values()), CUBE[:, 2, 1])


def test_colours(tmp_path):
    pytest.importorskip("pylibCZIrw")
    rgb = np.random.default_rng(0).integers(0, 256, (50, 63, 3)).astype(np.uint8)
    write_czi(tmp_path / "a.czi", rgb, "YXS")
    assert np.array_equal(planes(tmp_path / "a.czi", PlaneChoice(channel="red"))[""], rgb[..., 0])
    expected = np.rint(rgb @ [0.299, 0.587, 0.114])
    assert np.array_equal(planes(tmp_path / "a.czi", PlaneChoice())[""], expected)


def test_sizes_that_nobody_measured(tmp_path):
    pytest.importorskip("nd2")
    write_nd2(tmp_path / "a.nd2", CUBE[0, 0, 0], "YX", pixel_um=0)
    assert read_pixel_size(tmp_path / "a.nd2") is None


def test_damaged_files(path, suffix):
    WRITERS[suffix](path, CUBE)
    whole = path.read_bytes()
    for content in (b"", b"no image at all", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=path.name):
            planes(path, PlaneChoice(channel=1, stack=True))
    with pytest.raises(ImageError, match="does not exist"):
        planes(path.with_name(f"b{suffix}"), PlaneChoice())


@pytest.mark.parametrize("ending", MICROSCOPE_SUFFIXES)
def test_without_its_package_a_kind_names_it(tmp_path, monkeypatch, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"something")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=rf"{ending} needs another package: type `pip install {PACKAGES[ending]}`"):
        open_stored(path)


def test_they_are_found_in_folders(tmp_path, caplog):
    for ending in MICROSCOPE_SUFFIXES:
        (tmp_path / f"a{ending}").write_bytes(b"something")
    with caplog.at_level(logging.WARNING):
        assert len(find_images(tmp_path, every_kind=True)) == len(MICROSCOPE_SUFFIXES)
    assert caplog.text == ""
