"""Pixel sizes from TIFFs as ImageJ, OME programs, cameras and photo programs write them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize, read_pixel_size
from cellseg_d2.images.read import ImageError

IMAGE = np.zeros((4, 6), np.uint8)


def written(path, **options):
    tifffile.imwrite(path, IMAGE, **options)
    return read_pixel_size(path)


@pytest.mark.parametrize(
    ("unit", "per_unit"),
    [
        ("um", 1),
        ("micron", 1),
        ("microns", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("cm", 1e4),
        ("inch", 25400),
    ],
)
def test_imagej_units(tmp_path, unit, per_unit):
    size = written(
        tmp_path / "a.tif", imagej=True, resolution=(per_unit / 0.65, per_unit / 0.5), metadata={"unit": unit}
    )
    assert (size.x_um, size.y_um) == pytest.approx((0.65, 0.5), rel=1e-4)


@pytest.mark.parametrize("unit", [b"\\u00B5m", "µm".encode("latin-1"), "µm".encode(), "μm".encode()])
def test_imagej_s_micro_sign(tmp_path, unit):
    """Escaped as ImageJ does, or as it stands in Latin-1 or UTF-8, also the Greek letter."""
    description = b"ImageJ=1.54f\nunit=" + unit + b"\n"
    size = written(tmp_path / "a.tif", description=description, metadata=None, resolution=(2.5, 2.5), resolutionunit=1)
    assert size == PixelSize(0.4, 0.4)


def test_imagej_s_units_by_axis(tmp_path):
    description = "ImageJ=1.54f\nunit=um\nyunit=nm\n"
    options = {"description": description, "metadata": None, "resolutionunit": 1}
    size = written(tmp_path / "a.tif", resolution=(1 / 0.325, 0.001 / 0.65), **options)
    assert (size.x_um, size.y_um) == pytest.approx((0.325, 0.65), rel=1e-4)


@pytest.mark.parametrize("unit", ["pixel", "", "sec", None])
def test_imagej_without_a_length(tmp_path, unit):
    metadata = {} if unit is None else {"unit": unit}
    assert written(tmp_path / "a.tif", imagej=True, resolution=(2, 2), resolutionunit=1, metadata=metadata) is None


@pytest.mark.parametrize(
    ("unit", "scale"),
    [
        *[(None, 1), ("µm", 1), ("nm", 1e-3), ("mm", 1e3), ("cm", 1e4), ("m", 1e6), ("in", 25400)],
        *[("Å", 1e-4), ("\u212b", 1e-4)],
    ],
)
def test_ome(tmp_path, unit, scale):
    metadata = {"axes": "YX", "PhysicalSizeX": 0.325 / scale, "PhysicalSizeY": 0.65 / scale}
    if unit:
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    size = written(tmp_path / "a.ome.tif", ome=True, metadata=metadata, resolution=(72, 72), resolutionunit="INCH")
    assert (size.x_um, size.y_um) == pytest.approx((0.325, 0.65))


@pytest.mark.parametrize(
    "attributes",
    [
        'PhysicalSizeX="1.5"',
        'PhysicalSizeX="0" PhysicalSizeY="0"',
        'PhysicalSizeX="a" PhysicalSizeY="2"',
        'PhysicalSizeX="1" PhysicalSizeY="1" PhysicalSizeXUnit="pixel" PhysicalSizeYUnit="pixel"',
    ],
)
def test_ome_that_tells_nothing_falls_back_to_the_tags(tmp_path, attributes):
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" SizeX="6" SizeY="4" SizeZ="1" SizeC="1" SizeT="1" Type="uint8" '
        f'DimensionOrder="XYZCT" {attributes}><TiffData/></Pixels></Image></OME>'
    )
    plain = {"description": xml, "metadata": None}
    assert written(tmp_path / "a.tif", **plain) is None
    size = written(tmp_path / "b.tif", **plain, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    assert size == PixelSize(0.5, 0.5)


@pytest.mark.parametrize(
    ("told", "warned"),
    [
        ({"PhysicalSizeX": 1.5}, "PhysicalSizeX 1.5"),
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "µm"}, "PhysicalSizeX 2"),
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "li", "PhysicalSizeY": 2, "PhysicalSizeYUnit": "li"}, "XUnit li"),
        ({"PhysicalSizeX": 2, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 2, "PhysicalSizeYUnit": "pixel"}, None),
        ({}, None),
    ],
)
def test_what_tells_too_little_is_said(tmp_path, caplog, told, warned):
    assert written(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "YX", **told}) is None
    if warned is None:
        assert caplog.text == ""
    else:
        assert warned in caplog.text
        assert "give --pixel-size" in caplog.text


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((10_000, 20_000), "CENTIMETER", (1.0, 0.5)),
        ((25_400, 25_400), "INCH", (1.0, 1.0)),
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((300, 300), "INCH", None),
        ((1200, 1200), "INCH", None),
        ((28.35, 28.35), "CENTIMETER", None),
        ((2, 2), "NONE", None),
    ],
)
def test_plain_tags(tmp_path, resolution, unit, expected):
    size = written(tmp_path / "a.tif", resolution=resolution, resolutionunit=unit, metadata=None)
    assert size == (None if expected is None else PixelSize(*expected))


def test_photo_programs_resolution_in_an_imagej_file(tmp_path):
    assert written(tmp_path / "a.tif", imagej=True, resolution=(72, 72), metadata={"unit": "inch"}) is None


def test_files_that_tell_nothing(tmp_path):
    assert written(tmp_path / "a.tif") is None
    Image.fromarray(IMAGE).save(tmp_path / "a.png", dpi=(25_400, 25_400))
    assert read_pixel_size(tmp_path / "a.png") is None


def test_unreadable_files(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_pixel_size(tmp_path / "none.tif")
    (tmp_path / "bad.tif").write_bytes(b"II*\0 nothing")
    with pytest.raises(ImageError, match=r"bad\.tif (cannot be read|holds no image)"):
        read_pixel_size(tmp_path / "bad.tif")


def test_sizes():
    assert PixelSize(0.5, 0.25).area_um2 == 0.125
    assert PixelSize(0.5, 0.5002).is_square
    assert not PixelSize(0.5, 0.51).is_square
    for sides in ((0, 1), (-1, 1), (float("nan"), 1), (1, float("inf"))):
        with pytest.raises(CellSegError, match="positive"):
            PixelSize(*sides)
