"""Parts of images in arrays, TIFFs and Zarr are those of the whole image, and no more than needed is read."""

import builtins
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.grey import grey_from_channels
from cellseg_d2.images.intensity import intensity_range, to_uint8
from cellseg_d2.images.lazy import ImageSource, open_source, sample_percentiles
from cellseg_d2.images.pixel_size import PixelSize, read_pixel_size
from cellseg_d2.images.read import image_size, read_image, read_label_plane

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 60000, (150, 203)).astype(np.uint16)
RGB = RNG.integers(0, 256, (150, 203, 3)).astype(np.uint8)


def assert_parts_of(source, whole):
    assert (source.height, source.width) == whole.shape
    for top, left, h, w in [
        (0, 0, *whole.shape),
        (0, 0, 1, 1),
        (149, 202, 1, 1),
        (31, 33, 70, 120),
        (100, 90, 50, 113),
    ]:
        part = source.read(top, left, h, w)
        assert part.dtype == source.dtype
        assert np.array_equal(part, whole[top : top + h, left : left + w].astype(source.dtype))


def test_arrays_and_memory_maps(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    assert_parts_of(open_source(np.load(tmp_path / "a.npy", mmap_mode="r")), GREY)
    assert_parts_of(open_source(GREY[None, ..., None]), GREY)
    assert_parts_of(open_source(GREY.tolist()), GREY.astype(np.float32))
    for image, axis in [(RGB, None), (np.moveaxis(RGB, 2, 0), 0), (np.moveaxis(RGB, 2, 1), 1)]:
        assert_parts_of(open_source(image, channel_axis=axis), grey_from_channels(RGB))
    assert_parts_of(open_source(GREY > 30000), (GREY > 30000) * np.uint8(255))
    source = open_source(GREY)
    assert open_source(source) is source


def test_tensors_and_masked_arrays():
    torch = pytest.importorskip("torch")
    assert_parts_of(open_source(torch.tensor(RGB)), grey_from_channels(RGB))
    assert np.isnan(open_source(np.ma.masked_less(GREY, 100)).read(0, 0, 150, 203)).sum() == (GREY < 100).sum()


def test_the_type_does_not_depend_on_the_values():
    image = np.zeros((60, 60), np.int32)
    image[30:] = 100_000
    source = open_source(image)
    assert source.read(0, 0, 5, 5).dtype == source.read(40, 0, 5, 5).dtype == np.float32


@pytest.mark.parametrize("layout", [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("image", ["grey", "big-endian", "bits", "white", "rgb", "planes", "palette"])
def test_tiffs(tmp_path, image, compression, layout):
    path = tmp_path / "a.tif"
    options = {"compression": compression, **layout}
    if image == "grey":
        tifffile.imwrite(path, GREY, **options)
    elif image == "big-endian":
        tifffile.imwrite(path, GREY.astype(">u2"), byteorder=">", **options)
    elif image == "bits":
        tifffile.imwrite(path, GREY > 30000, **options)
    elif image == "white":
        tifffile.imwrite(path, GREY, photometric="miniswhite", **options)
    elif image == "rgb":
        tifffile.imwrite(path, RGB, photometric="rgb", **options)
    elif image == "planes":
        tifffile.imwrite(path, np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate", **options)
    else:
        colours = RNG.integers(0, 65536, (3, 256)).astype(np.uint16)
        tifffile.imwrite(path, RGB[..., 0], photometric="palette", colormap=colours, **options)
    with open_source(path) as source:
        assert_parts_of(source, read_image(path))


@pytest.mark.parametrize("kind", ["LZW", "JPEG", "deflate and a predictor", "packbits of 16 bits", "rgb of 32 bits"])
def test_tiffs_of_other_programs(tmp_path, kind):
    path = tmp_path / "a.tif"
    if kind == "rgb of 32 bits":
        tifffile.imwrite(path, RGB.astype(np.int32), photometric="rgb")
    elif kind == "deflate and a predictor":
        Image.fromarray(RGB).save(path, compression="tiff_adobe_deflate", tiffinfo={317: 2})
    elif kind == "packbits of 16 bits":
        Image.fromarray(GREY).save(path, compression="packbits")
    else:
        Image.fromarray(RGB).save(path, compression={"LZW": "tiff_lzw", "JPEG": "jpeg"}[kind])
    with open_source(path) as source:
        assert_parts_of(source, read_image(path))
    if kind != "JPEG":
        assert np.abs(read_image(path) - (GREY if "16" in kind else grey_from_channels(RGB)).astype(float)).max() <= 1


@pytest.mark.parametrize(
    ("tag", "value", "message"), [("Compression", 60001, r"compressed \(60001\)"), ("BitsPerSample", 61, "61 bits")]
)
def test_a_tiff_of_a_kind_that_nobody_knows(tmp_path, tag, value, message):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags[tag].overwrite(value)
    with pytest.raises(CellSegError, match=message):
        open_source(path)


def test_a_tiff_with_smaller_copies_of_itself(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as tiff:
        tiff.write(GREY, tile=(64, 64), compression="deflate", subifds=1)
        tiff.write(GREY[::2, ::2], tile=(64, 64), compression="deflate", subfiletype=1)
    with open_source(tmp_path / "pyramid.tif") as source:
        assert_parts_of(source, GREY)


def thumbnail_first(path, compression, marked):
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(GREY[::8, ::8], subfiletype=int(marked), compression=compression)
        tiff.write(GREY, compression=compression)


@pytest.mark.parametrize(
    ("kind", "marked"), [(None, False), (None, True), ("deflate", False), ("deflate", True), ("LZW", False)]
)
def test_after_a_thumbnail_the_largest_image_is_read(tmp_path, caplog, kind, marked):
    path = tmp_path / "a.tif"
    if kind == "LZW":
        small, *rest = Image.fromarray(GREY[::8, ::8]), Image.fromarray(GREY)
        small.save(path, save_all=True, append_images=rest, compression="tiff_lzw")
    else:
        thumbnail_first(path, kind, marked)
    for _ in range(2):
        assert np.array_equal(read_image(path), GREY)
    assert np.array_equal(read_label_plane(path), GREY)
    assert image_size(path) == GREY.shape
    with open_source(path) as source:
        assert_parts_of(source, GREY)
    told = [] if marked else [f"{path} begins with an image of 19 × 26 pixels; read is its largest one, of 150 × 203"]
    assert [record.getMessage() for record in caplog.records] == told


def test_an_ome_tiff_that_names_other_files_is_the_file_itself(tmp_path):
    """Each file of a series describes all of them; so does one that was renamed."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(tmp_path / "b.ome.tif", 60000 - GREY, ome=True, metadata={"axes": "YX"})
    files = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(["b.ome.tif", "missing.ome.tif"])
    )
    pixels = (
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="203" SizeY="150" SizeZ="2" SizeC="1" '
        f'SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{files}'
        "</Pixels>"
    )
    ome = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    xml = f'<?xml version="1.0"?><OME xmlns="{ome}" UUID="urn:uuid:9"><Image ID="Image:0">{pixels}</Image></OME>'
    tifffile.imwrite(path, GREY, description=xml, metadata=None)
    assert np.array_equal(read_image(path), GREY)
    assert np.array_equal(read_label_plane(path), GREY)
    assert read_pixel_size(path) == PixelSize(0.5, 0.5)
    with open_source(path) as source:
        assert_parts_of(source, GREY)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 64}, {"tile": (64, 64)}])
def test_a_strip_may_not_unpack_to_any_size(tmp_path, layout):
    """64 × 64 pixels whose packed strip unpacks to 256 MB; refused without unpacking more than a few kB."""
    path = tmp_path / "a.tif"
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(bytes(2**20)) for _ in range(256)), packer.flush()])
    tifffile.imwrite(path, GREY[:64, :64], compression="deflate", **layout)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages.first
        tags = ("TileOffsets", "TileByteCounts") if page.is_tiled else ("StripOffsets", "StripByteCounts")
        page.tags[tags[0]].overwrite(path.stat().st_size)
        page.tags[tags[1]].overwrite(len(packed))
    with open(path, "ab") as file:
        file.write(packed)
    for read in (read_image, read_label_plane, lambda path: open_source(path).read(0, 0, 1, 1)):
        tracemalloc.start()
        with pytest.raises(ImageError, match=r"a\.tif holds a tile or strip of 4,096 pixels that unpacks to more than"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


def test_only_the_tiles_that_are_needed_are_decoded(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.tile(GREY, (3, 3)), tile=(64, 64), compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        start, size = page.dataoffsets[-1], page.databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(size)  # the last tile can no longer be decoded
    path.write_bytes(content)
    with open_source(path) as source:
        assert np.array_equal(source.read(0, 0, 150, 203), GREY)
        with pytest.raises(CellSegError, match=r"a\.tif cannot be read, it seems damaged"):
            source.read(440, 600, 10, 9)


def test_compressions_that_need_another_package(tmp_path, monkeypatch):
    path = tmp_path / "lzw.tif"
    Image.fromarray(RGB[..., 0]).save(path, compression="tiff_lzw")
    assert_parts_of(open_source(path), RGB[..., 0])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_parts_of(open_source(path), RGB[..., 0])  # small enough to be read whole
    monkeypatch.setattr("cellseg_d2.images.lazy._WHOLE_LIMIT", 1000)
    with pytest.raises(CellSegError, match=r"lzw\.tif is compressed \(LZW\).*pip install imagecodecs"):
        open_source(path)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    options = {"chunks": (1, 64, 64), "zarr_format": version}
    zarr.create_array(tmp_path / "a.zarr", data=GREY[None], **options)
    assert_parts_of(open_source(tmp_path / "a.zarr"), GREY)
    assert_parts_of(open_source(zarr.open(tmp_path / "a.zarr", mode="r")), GREY)
    group = zarr.open_group(tmp_path / "ome.zarr", mode="w", zarr_format=version)
    group.create_array("full", data=GREY[None, None], chunks=(1, 1, 64, 64))
    with pytest.raises(CellSegError, match=r"ome\.zarr is a Zarr group; name one of its arrays \(full\)"):
        open_source(tmp_path / "ome.zarr")
    scales = [{"datasets": [{"path": "full"}, {"path": "half"}]}]
    group.attrs.update({"multiscales": scales} if version == 2 else {"ome": {"multiscales": scales}})
    assert_parts_of(open_source(tmp_path / "ome.zarr"), GREY)


def test_a_zarr_that_claims_too_much_or_has_a_group_for_an_image(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(tmp_path / "claim.zarr", shape=(10**6, 10**6), chunks=(64, 64), dtype="uint8")
    zarr.create_array(tmp_path / "chunk.zarr", shape=(64, 64), chunks=(10**6, 10**6), dtype="uint8")
    for name in ("claim", "chunk"):
        with pytest.raises(ImageError, match=rf"{name}\.zarr claims to hold 1000000 × 1000000 pixels"):
            open_source(tmp_path / f"{name}.zarr")
    group = zarr.open_group(tmp_path / "ome.zarr", mode="w")
    group.create_group("full")
    group.attrs["ome"] = {"multiscales": [{"datasets": [{"path": "full"}]}]}
    with pytest.raises(ImageError, match="full is a Zarr group, where an array should be"):
        open_source(tmp_path / "ome.zarr")


def test_without_zarr_its_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zarray").write_text("{}")
    real = builtins.__import__

    def without_zarr(name, *args, **kwargs):
        if name == "zarr":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_zarr)
    with pytest.raises(CellSegError, match="pip install zarr"):
        open_source(tmp_path / "a.zarr")


def test_other_files_are_read_whole(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    assert_parts_of(open_source(tmp_path / "a.png"), read_image(tmp_path / "a.png"))


def test_what_is_refused(tmp_path):
    with pytest.raises(CellSegError, match="does not exist"):
        open_source(tmp_path / "none.tif")
    with pytest.raises(CellSegError, match="is a folder and no Zarr array"):
        open_source(tmp_path)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([GREY] * 5))
    with pytest.raises(CellSegError, match="is a stack of shape 5 × 150 × 203"):
        open_source(tmp_path / "stack.tif")
    with pytest.raises(CellSegError, match="stack of shape 9 × 150 × 203"):
        open_source(np.zeros((9, 150, 203)))
    with pytest.raises(CellSegError, match="complex64"):
        open_source(GREY.astype(np.complex64))
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(CellSegError, match="channel_axis is for arrays"):
        open_source(tmp_path / "a.png", channel_axis=0)
    for part in [(0, 0, 0, 5), (-1, 0, 5, 5), (149, 0, 2, 5), (0, 200, 5, 4)]:
        with pytest.raises(ValueError, match="no part of an image of 150 × 203"):
            open_source(GREY).read(*part)


def test_percentiles_of_small_images_are_exact():
    image = GREY.astype(np.float32)
    image[3, 4] = np.nan
    limits = sample_percentiles(open_source(image), (0.1, 50, 99.9))
    assert limits == tuple(intensity_range(image, (0.1, 50, 99.9)))
    stretched = to_uint8(image, limits=(limits[0], limits[2]))
    assert np.array_equal(stretched, to_uint8(image))
    assert np.array_equal(to_uint8(image[:50], limits=(limits[0], limits[2])), stretched[:50])


class Ramp(ImageSource):
    """Values from 0 to 1 from left to right; counts the pixels that are read."""

    def __init__(self, height, width):
        self.height, self.width, self.dtype = height, width, np.dtype(np.float32)
        self.values = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
        self.pixels = 0

    def _read(self, rows, columns):
        block = self.values[rows, columns]
        self.pixels += block.size
        return block


@pytest.mark.parametrize(("height", "width"), [(40_000, 50_000), (300, 2_000_000), (5_000_000, 90)])
def test_percentiles_of_large_images_read_a_bounded_part(height, width):
    source = Ramp(height, width)
    assert sample_percentiles(source, (1, 25, 50, 99)) == pytest.approx((0.01, 0.25, 0.5, 0.99), abs=0.02)
    assert source.pixels <= 64 * 256**2
