"""Axes have one meaning in all containers: a TIFF, a Zarr folder and an array give the same planes, or ask the same."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.axes import AxesError, Layout, PlaneChoice, choose_planes
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.lazy import PlaneSource, open_stored
from cellseg_d2.images.pixel_size import PixelSize, read_pixel_size
from cellseg_d2.images.read import image_size, read_image, read_label_plane

RNG = np.random.default_rng(0)
T, Z, C = 2, 3, 2
CUBE = RNG.integers(0, 60000, (T, Z, C, 50, 63)).astype(np.uint16)  # TZCYX
NAMES = ("DAPI", "GFP")
# What is chosen: which of CUBE's planes that gives, and what their names end in.
CHOICES = {
    "first channel": (PlaneChoice(channel=0, stack=True), CUBE[:, :, 0].reshape(-1, 50, 63)),
    "by name": (PlaneChoice(channel="gfp", stack=True), CUBE[:, :, 1].reshape(-1, 50, 63)),
    "maximum": (PlaneChoice(channel=1, stack=True, projection="max"), CUBE[:, :, 1].max(axis=1)),
    "mean": (PlaneChoice(channel=1, stack=True, projection="mean"), np.rint(CUBE[:, :, 1].mean(axis=1))),
}


def ome_tiff(path, axes, array, **options):
    metadata = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata=metadata, **options)


def imagej(path, axes, array):
    resolution = {"resolution": (2, 4), "metadata": {"axes": axes, "unit": "um"}}
    tifffile.imwrite(path, array, imagej=True, **resolution)


def ome_zarr(path, axes, array, version):
    zarr = pytest.importorskip("zarr")
    kinds = {"T": "time", "C": "channel"}
    named = [
        {"name": name.lower(), "type": kinds[name]}
        if name in kinds
        else {"name": name.lower(), "type": "space", "unit": "micrometer"}
        for name in axes
    ]
    half = [{"type": "scale", "scale": [2.0 if name == "X" else 1.0 for name in axes]}]
    quarter = [{"type": "scale", "scale": [0.25 if name in "YX" else 1.0 for name in axes]}]
    told = {
        "multiscales": [
            {
                "version": "0.4",
                "axes": named,
                "datasets": [{"path": "0", "coordinateTransformations": quarter}],
                "coordinateTransformations": half,
            }
        ],
        "omero": {"channels": [{"label": name} for name in NAMES]},
    }
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("0", data=array, chunks=(1,) * (array.ndim - 2) + (32, 32))
    group.attrs.update(told if version == 2 else {"ome": told})


CONTAINERS = {
    "a.ome.tif": ome_tiff,
    "packed.ome.tif": lambda *given: ome_tiff(*given, compression="deflate", tile=(32, 32)),
    "a.tif": imagej,
    "2.zarr": lambda *given: ome_zarr(*given, version=2),
    "3.zarr": lambda *given: ome_zarr(*given, version=3),
}


def planes(image, choice, **options):
    """Name's end and grey values of each plane that is wanted."""
    found = {}
    with open_stored(image, choice=choice, **options) as stored:
        for plane in choose_planes(stored.layout, choice, stored.origin):
            source = PlaneSource(stored, plane)
            whole = source.read(0, 0, source.height, source.width)
            assert np.array_equal(source.read(20, 30, 17, 19), whole[20:37, 30:49])
            found[plane.suffix] = whole
    return found


@pytest.mark.parametrize("chosen", CHOICES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_same_planes_in_every_container(tmp_path, container, chosen):
    CONTAINERS[container](tmp_path / container, "TZCYX", CUBE)
    choice, expected = CHOICES[chosen]
    if container == "a.tif" and chosen == "by name":
        pytest.skip("ImageJ names no channels of hyperstacks")
    found = planes(tmp_path / container, choice)
    places = [f"_t{t:03d}" for t in range(T)]
    if choice.projection is None:
        places = [f"{place}_z{z:03d}" for place in places for z in range(Z)]
    assert list(found) == places
    assert np.array_equal(np.stack(list(found.values())), expected)
    by_name = replace(choice, axes="TZCYX", channel=0 if chosen == "first channel" else 1)
    assert np.array_equal(list(planes(CUBE, by_name).values()), expected)


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_same_questions_in_every_container(tmp_path, container):
    path = tmp_path / container
    CONTAINERS[container](path, "CYX", CUBE[0, 0])
    with pytest.raises(AxesError, match=r"has 2 channels \(0.* 1.*\): choose .* with --channel N"):
        planes(path, PlaneChoice(stack=True, projection="max"))
    CONTAINERS[container](path, "ZYX", CUBE[0, :, 0])
    with pytest.raises(AxesError, match=r"3 × 50 × 63 \(Z 3\): --stack .*, --projection max"):
        planes(path, PlaneChoice())
    CONTAINERS[container](path, "TYX", CUBE[:, 0, 0])
    with pytest.raises(AxesError, match=r"2 × 50 × 63 \(T 2\)"):
        planes(path, PlaneChoice(channel=0))
    assert np.array_equal(planes(path, PlaneChoice(projection="max"))[""], CUBE[:, 0, 0].max(axis=0))
    named = PlaneChoice(channel=1, axes="CYX")  # where its metadata are wrong, users say so
    assert np.array_equal(planes(path, named)[""], CUBE[1, 0, 0])
    CONTAINERS[container](path, "YX", CUBE[0, 0, 0])
    assert np.array_equal(planes(path, PlaneChoice(channel=0, projection="mean", stack=True))[""], CUBE[0, 0, 0])
    with pytest.raises(AxesError, match=r"one channel .*, of which none is '1'"):
        planes(path, PlaneChoice(channel=1))


@pytest.mark.parametrize("container", CONTAINERS)
def test_pixel_sizes_are_those_of_the_planes(tmp_path, container):
    for axes, array in (("TZCYX", CUBE), ("CYX", CUBE[0, 0]), ("YX", CUBE[0, 0, 0])):
        CONTAINERS[container](tmp_path / container, axes, array)
        assert read_pixel_size(tmp_path / container) == PixelSize(0.5, 0.25)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_planes_of_a_tiff_that_names_no_axes(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CUBE[0, :, 0], compression=compression, photometric="minisblack", metadata=None)
    assert np.array_equal(list(planes(path, PlaneChoice(stack=True)).values()), CUBE[0, :, 0])
    assert list(planes(path, PlaneChoice(stack=True))) == ["_000", "_001", "_002"]
    assert np.array_equal(planes(path, PlaneChoice(channel=2))[""], CUBE[0, 2, 0])
    with pytest.raises(AxesError, match="whether axis 0 is that of channels or of planes: --channel N"):
        planes(path, PlaneChoice())
    with pytest.raises(AxesError, match="rows and columns elsewhere than the axes YXC say"):
        planes(path, PlaneChoice(axes="YXC"))


@pytest.mark.parametrize("separate", [False, True])
def test_samples_of_a_pixel_that_are_no_colours_are_channels(tmp_path, separate):
    path = tmp_path / "a.tif"
    array = CUBE[0, :, 0] if separate else np.moveaxis(CUBE[0, :, 0], 0, -1)
    tifffile.imwrite(
        path, array, photometric="minisblack", planarconfig="separate" if separate else "contig", metadata=None
    )
    with pytest.raises(AxesError, match="3 channels"):
        planes(path, PlaneChoice())
    assert np.array_equal(planes(path, PlaneChoice(channel=2))[""], CUBE[0, 2, 0])


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_one_colour_of_a_tiff(tmp_path, compression):
    rgb = RNG.integers(0, 256, (50, 63, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.tif", compression=compression)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        assert np.array_equal(planes(tmp_path / name, PlaneChoice(channel="blue"))[""], rgb[..., 2])


def test_planes_behind_a_single_page(tmp_path):
    """So ImageJ writes what takes more than 4 GB."""
    path = tmp_path / "a.tif"
    imagej(path, "ZCYX", CUBE[0])
    with tifffile.TiffFile(path) as tiff:
        first = tiff.pages[0].dataoffsets[0]
        assert [page.dataoffsets[0] - first for page in tiff.pages] == [n * CUBE[0, 0, 0].nbytes for n in range(6)]
    cut = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].offset + 2 + 12 * len(tiff.pages[0].tags)
    cut[place : place + 4] = bytes(4)  # no page follows
    path.write_bytes(cut)
    found = planes(path, PlaneChoice(channel=1, stack=True))
    assert np.array_equal(list(found.values()), CUBE[0, :, 1])


def test_several_images_in_one_file(tmp_path):
    zarr = pytest.importorskip("zarr")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        for t in range(T):
            tiff.write(
                CUBE[t, 0, 0], metadata={"axes": "YX", "Name": f"well {t}", "PhysicalSizeX": 1 + t, "PhysicalSizeY": 1}
            )
    ome_zarr(tmp_path / "a.zarr/0", "YX", CUBE[0, 0, 0], 2)
    ome_zarr(tmp_path / "a.zarr/1", "YX", CUBE[1, 0, 0], 2)
    zarr.open_group(tmp_path / "a.zarr", mode="a", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    for name in ("a.ome.tif", "a.zarr"):
        with pytest.raises(AxesError, match=r"holds 2 images .*choose one with --scene N"):
            planes(tmp_path / name, PlaneChoice())
        for scene in (0, 1):
            assert np.array_equal(planes(tmp_path / name, PlaneChoice(scene=scene))[""], CUBE[scene, 0, 0])
        with pytest.raises(AxesError, match=r"2 scenes .*, of which none is '2'"):
            planes(tmp_path / name, PlaneChoice(scene=2))
    assert np.array_equal(planes(tmp_path / "a.ome.tif", PlaneChoice(scene="well 1"))[""], CUBE[1, 0, 0])
    assert read_pixel_size(tmp_path / "a.ome.tif", scene=1) == PixelSize(2, 1)


def test_a_plate_is_no_image(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["ome"] = {"plate": {}}
    with pytest.raises(ImageError, match=r"is a plate: name its fields, such as '.*/\*/\*/\*'"):
        planes(tmp_path / "a.zarr", PlaneChoice())


@pytest.mark.parametrize("read", [read_image, read_label_plane, image_size])
def test_where_nothing_can_be_chosen_no_option_is_named(tmp_path, read):
    ome_tiff(tmp_path / "a.tif", "CYX", CUBE[0, 0])
    with pytest.raises(AxesError, match=r"2 channels \(0 DAPI, 1 GFP\); save the plane that is meant as an image$"):
        read(tmp_path / "a.tif")


def test_ome_xml_that_describes_other_planes_is_not_believed(tmp_path):
    ome_tiff(tmp_path / "all.tif", "ZYX", CUBE[0, :, 0])
    with tifffile.TiffFile(tmp_path / "all.tif") as tiff:
        xml = tiff.pages[0].description
    tifffile.imwrite(tmp_path / "one.tif", CUBE[0, 0, 0], description=xml, metadata=None)
    assert np.array_equal(read_image(tmp_path / "one.tif"), CUBE[0, 0, 0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"projection": "median"}, "no projection 'median', only max and mean"),
        ({"axes": "TCZ"}, "with Y and X among them, such as TCYX, not 'TCZ'"),
        ({"axes": "YYX"}, "each once"),
    ],
)
def test_choices_that_make_no_sense(options, words):
    with pytest.raises(CellSegError, match=words):
        PlaneChoice(**options)


def test_time_is_outermost_however_it_is_stored():
    planes = choose_planes(Layout("ZTYX", (2, 1200, 5, 5)), PlaneChoice(stack=True))
    assert [plane.suffix for plane in planes[:3]] == ["_t0000_z000", "_t0000_z001", "_t0001_z000"]
    assert planes[-1].stored == ({"Z": 1, "T": 1199},)


def test_channels_called_by_numbers():
    """Wavelengths are names, small numbers are places."""
    layout = Layout("CYX", (2, 5, 5), ("405", "488"))
    assert choose_planes(layout, PlaneChoice(channel=488)) == choose_planes(layout, PlaneChoice(channel=1))
