"""Images of every kind come in as one grey plane; damaged ones are refused with a clear sentence."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import ImageError, find_images, image_size, read_image, read_label_plane

RAMP = np.arange(30, dtype=np.uint8).reshape(5, 6) * 8


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_grey_8_bit_is_read_as_it_is(tmp_path, suffix):
    path = tmp_path / f"ramp{suffix}"
    Image.fromarray(RAMP).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8
    assert np.array_equal(image, RAMP)
    assert image_size(path) == (5, 6)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_stays_16_bit(tmp_path, suffix):
    deep = RAMP.astype(np.uint16) * 250
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(deep).save(path)
    image = read_image(path)
    assert image.dtype == np.uint16
    assert np.array_equal(image, deep)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("uint8", "uint8"),
        (">u2", "uint16"),
        ("int16", "uint16"),
        ("uint32", "uint16"),
        ("float32", "float32"),
        (">f4", "float32"),
        ("float64", "float32"),
    ],
)
def test_numbers_of_a_tiff_are_kept_in_the_smallest_type_that_holds_them(tmp_path, dtype, expected):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(dtype))
    image = read_image(tmp_path / "a.tif")
    assert image.dtype == np.dtype(expected)
    assert image.dtype.isnative
    assert np.array_equal(image, RAMP)


def test_large_and_negative_integers_become_float(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.int32) * 1000)
    tifffile.imwrite(tmp_path / "b.tif", RAMP.astype(np.int16) - 100)
    assert np.array_equal(read_image(tmp_path / "a.tif"), RAMP.astype(np.float32) * 1000)
    assert np.array_equal(read_image(tmp_path / "b.tif"), RAMP.astype(np.float32) - 100)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_equal_channels_are_that_grey(tmp_path, mode, suffix):
    path = tmp_path / f"colour{suffix}"
    image = Image.fromarray(RAMP)
    (image.convert("RGB").quantize(256) if mode == "P" else image.convert(mode)).save(path)
    assert read_image(path).shape == (5, 6)
    assert np.abs(read_image(path).astype(int) - RAMP).max() <= 1
    assert image_size(path) == (5, 6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_weights_of_the_colours(tmp_path, dtype, planar):
    rgb = np.zeros((5, 6, 3), dtype)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 100, 50, 10
    stored = rgb if planar == "contig" else np.moveaxis(rgb, -1, 0)
    tifffile.imwrite(tmp_path / "rgb.tif", stored, photometric="rgb", planarconfig=planar)
    image = read_image(tmp_path / "rgb.tif")
    expected = 0.299 * 100 + 0.587 * 50 + 0.114 * 10
    assert image.dtype == dtype
    assert image.shape == (5, 6)
    assert np.allclose(image, expected if dtype == np.float32 else round(expected))


def test_black_and_white_is_0_and_255(tmp_path):
    Image.fromarray(RAMP > 100).save(tmp_path / "bits.png")
    tifffile.imwrite(tmp_path / "bits.tif", RAMP > 100, photometric="minisblack")
    for name in ("bits.png", "bits.tif"):
        assert np.array_equal(read_image(tmp_path / name), (RAMP > 100) * np.uint8(255))


def test_a_tiff_whose_zero_is_white_is_inverted(tmp_path):
    tifffile.imwrite(tmp_path / "white.tif", RAMP, photometric="miniswhite")
    assert np.array_equal(read_image(tmp_path / "white.tif"), 255 - RAMP)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_tiffs(tmp_path, compression, dtype):
    Image.fromarray(RAMP.astype(dtype)).save(tmp_path / "a.tif", compression=compression)
    assert np.array_equal(read_image(tmp_path / "a.tif"), RAMP)
    assert np.array_equal(read_label_plane(tmp_path / "a.tif"), RAMP)
    assert image_size(tmp_path / "a.tif") == (5, 6)


@pytest.mark.parametrize("compressed", [False, True])
def test_stacks_are_refused(tmp_path, compressed):
    path = tmp_path / "stack.tif"
    if compressed:
        planes = [Image.fromarray(RAMP + np.uint8(i)) for i in range(5)]
        planes[0].save(path, save_all=True, append_images=planes[1:], compression="tiff_lzw")
    else:
        tifffile.imwrite(path, np.zeros((5, 7, 8), np.uint8))
    for read in (read_image, image_size, read_label_plane):
        with pytest.raises(ImageError, match="stack of shape 5"):
            read(path)


def test_a_stack_of_one_plane_is_an_image(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", RAMP[None, None])
    assert np.array_equal(read_image(tmp_path / "one.tif"), RAMP)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_damaged_files_are_refused(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = tmp_path / f"noise{suffix}"
    Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for content, expected in (
        (whole[: len(whole) // 2], "damaged|no image"),
        (b"no image", "damaged|no image"),
        (b"", "empty file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=expected) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / f"other{suffix}")
    with pytest.raises(ImageError, match="is no file"):
        read_image(tmp_path)


def test_labels_are_never_turned_into_grey(tmp_path):
    labels = np.array([[0, 7], [300, 70000]], np.int32)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    assert np.array_equal(read_label_plane(tmp_path / "labels.tif"), labels)
    palette = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    assert read_label_plane(tmp_path / "palette.png").tolist() == [[0, 1], [2, 3]]
    for name in ("colour.png", "colour.tif"):
        Image.fromarray(RAMP).convert("RGB").save(tmp_path / name)
        with pytest.raises(ImageError, match="has colours"):
            read_label_plane(tmp_path / name)


def test_files_folders_and_patterns(tmp_path):
    names = ["b.png", "a.tif", "astros[cereb]_1.PNG", ".hidden.png", "notes.txt", "sub/c.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*paths):
        return [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path / p for p in paths])]

    assert found(".") == ["a.tif", "astros[cereb]_1.PNG", "b.png"]
    assert found("b.png", ".", "sub/../b.png") == ["a.tif", "astros[cereb]_1.PNG", "b.png"]
    assert found("*.png", "sub") == ["b.png", "sub/c.jpg"]
    assert found("**/*") == ["a.tif", "astros[cereb]_1.PNG", "b.png", "sub/c.jpg"]
    assert found("astros[cereb]_1.PNG") == ["astros[cereb]_1.PNG"]
    assert find_images(str(tmp_path / "sub")) == [tmp_path / "sub/c.jpg"]
    for path in ("nothing.png", "*.bmp", "notes*"):
        with pytest.raises(CellSegError, match="matches no image"):
            found("b.png", path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CellSegError, match="holds no image"):
        found("empty")


def test_what_a_folder_holds_beside_images_is_said(tmp_path, caplog):
    image = Image.fromarray(np.zeros((4, 5), np.uint8))
    for name in ("a.png", "b.webp", "c.gif", "A/d.png", "B/e.txt/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / name)
    (tmp_path / "e.czi").write_bytes(b"ZISRAWFILE")
    (tmp_path / "notes.txt").write_text("of no interest")
    assert [path.name for path in find_images(tmp_path)] == ["a.png"]
    assert "files of other kinds (.czi .gif .webp): 3, such as b.webp; save them as TIFF or PNG" in caplog.text
    assert f"sub-folders with images: 1, such as A; '{tmp_path}/**/*' names them too" in caplog.text
    caplog.clear()
    assert len(find_images(str(tmp_path / "**/*"))) == 3
    assert find_images(tmp_path / "A")[0].name == "d.png"
    assert caplog.text == ""
    (tmp_path / "a.png").unlink()
    with pytest.raises(CellSegError, match=r"holds no image .*, but files of other kinds .*: 3.* sub-folders .*: 1"):
        find_images(tmp_path)
