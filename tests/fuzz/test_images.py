"""Images and label images of any kind and in any state: their pixels, or a clear error."""

import io
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from PIL import Image

from cellseg_d2.datasets.label_images import read_label_image
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.lazy import open_source
from cellseg_d2.images.pixel_size import read_pixel_size
from cellseg_d2.images.read import ImageError, image_size, read_image
from cellseg_d2.masks.overlaps import crops_from_labels
from tests.fuzz.cases import fuzz

HEIGHT, WIDTH = 17, 23


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return ".tif", buffer.getvalue()


def pillow(image, suffix, **options):
    buffer = io.BytesIO()
    image.save(buffer, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()), **options)
    return suffix, buffer.getvalue()


def whole_files():
    """``(suffix, bytes)`` of one image in many kinds of file."""
    grey = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 251).astype(np.uint8)
    colours = np.stack([grey, 255 - grey, grey // 2], axis=2)
    deep, real = grey.astype(np.uint16) * 257, grey / np.float32(251)
    odd = np.where(grey % 7 == 0, np.float32("nan"), np.where(grey % 11 == 0, np.float32("inf"), real))
    image = Image.fromarray(grey)
    return [
        pillow(image, ".png"),
        pillow(Image.fromarray(deep), ".png"),
        pillow(image.convert("1"), ".png"),
        pillow(Image.fromarray(colours).convert("P"), ".png"),
        pillow(Image.fromarray(colours).convert("RGBA"), ".png"),
        pillow(image, ".png", save_all=True, append_images=[image.rotate(180)]),
        pillow(image, ".jpg"),
        pillow(Image.fromarray(colours).convert("CMYK"), ".jpg"),
        pillow(image, ".bmp"),
        pillow(image, ".tif", compression="tiff_lzw"),
        tiff(grey),
        tiff(deep, compression="zlib", tile=(16, 16)),
        tiff(odd),
        tiff(odd.astype(np.float64)),
        tiff(grey.astype(np.int32) - 5),
        tiff(grey > 100),
        tiff(colours, photometric="rgb", planarconfig="separate", rowsperstrip=4),
        tiff(grey.astype(np.complex64)),
        tiff(np.stack([grey, grey])),
        tiff(grey, imagej=True, resolution=(2.0, 2.0), metadata={"unit": "um"}),
    ]


FILES = whole_files()


@st.composite
def damaged_files(draw):
    suffix, content = draw(st.sampled_from(FILES))
    damage = draw(st.sampled_from(["none", "cut", "flip", "flip", "head", "suffix", "doubled"]))
    if damage == "cut":
        content = content[: draw(st.integers(0, len(content)))]
    elif damage in ("flip", "head"):
        data = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, min(len(data), 200 if damage == "head" else len(data)) - 1))
            data[at] = draw(st.integers(0, 255))
        content = bytes(data)
    elif damage == "suffix":
        suffix = draw(st.sampled_from([".png", ".tif", ".jpg", ".bmp"]))
    elif damage == "doubled":
        content += content
    return suffix, content, damage == "none"


@fuzz(800, damaged_files())
def test_damaged_images(folder, case):
    suffix, content, whole = case
    path = folder / f"image{suffix}"
    path.write_bytes(content)
    for read in (read_pixel_size, image_size, read_label_image):
        with suppress(CellSegError):
            read(path)
    try:
        with open_source(path) as source:
            part = source.read(0, 0, min(4, source.height), min(5, source.width))
    except CellSegError:
        part = None
    image = read_image(path)
    assert image.ndim == 2
    assert min(image.shape) > 0
    assert image.dtype in (np.uint8, np.uint16, np.float32)
    if whole:
        assert image.shape == (HEIGHT, WIDTH) == image_size(path)
        assert np.array_equal(part, image[:4, :5].astype(part.dtype), equal_nan=part.dtype.kind == "f")


numbers = st.sampled_from([0, 0, 1, 2, 3, 255, 256, 65535, 2**24, 2**31 - 1, 2**32 + 1, 2**40, 2**63, -1, 0.5, np.nan])


@fuzz(300, st.tuples(st.lists(numbers, min_size=12, max_size=12), st.sampled_from("bBhHiIqQfd?F")))
def test_labels(folder, case):
    values, kind = case
    with np.errstate(all="ignore"):
        labels = np.array(values, dtype=np.float64).astype(np.dtype(kind)).reshape(3, 4)
    tifffile.imwrite(folder / "labels.tif", labels)
    read = read_label_image(folder / "labels.tif")
    assert np.array_equal(read, labels)
    numbers = np.unique(labels[labels > 0])
    crops = crops_from_labels(read)
    assert len(crops) == len(numbers)
    for number, crop in zip(numbers, crops, strict=True):
        assert np.array_equal(crop.to_full(3, 4), labels == number)


def test_a_header_may_not_claim_any_size(tmp_path):
    """A TIFF of 1 kB with a header of a terabyte, and a PNG of as many pixels."""
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, shape=(16, 16), dtype=np.uint8)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageWidth"].overwrite(1_000_000)
        file.pages[0].tags["ImageLength"].overwrite(1_000_000)
    for read in (read_image, image_size, open_source):
        with pytest.raises(ImageError, match="claims to hold 1000000 × 1000000 pixels"):
            read(path)
    png = bytearray(FILES[0][1])
    png[16:24] = (100_000).to_bytes(4, "big") * 2
    (tmp_path / "bomb.png").write_bytes(png)
    with pytest.raises(ImageError):
        read_image(tmp_path / "bomb.png")
