"""Label images as TIFF: the same pixels, with their size, in little memory."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_d2.datasets.label_images import read_label_image
from cellseg_d2.export import labels
from cellseg_d2.export.labels import label_bands, write_labels
from cellseg_d2.images.pixel_size import PixelSize, read_pixel_size
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import label_dtype
from cellseg_d2.postprocess.steps import Cells
from tests.inference.segmentations import HEIGHT, WIDTH, difficult_crops, segmentation_of


@pytest.mark.parametrize("band_pixels", [1, 3 * WIDTH, 7 * WIDTH, 1 << 20])
def test_the_same_pixels_whatever_the_bands(tmp_path, monkeypatch, band_pixels):
    monkeypatch.setattr(labels, "_BAND_PIXELS", band_pixels)
    segmentation = segmentation_of(difficult_crops())
    write_labels(tmp_path / "new/a.tif", segmentation)
    assert np.array_equal(tifffile.imread(tmp_path / "new/a.tif"), segmentation.labels)
    assert np.array_equal(read_label_image(tmp_path / "new/a.tif"), segmentation.labels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.tif"]


def test_what_imagej_needs(tmp_path):
    write_labels(tmp_path / "a.tif", segmentation_of(difficult_crops()))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata["unit"] == "um"
        page = tiff.pages[0]
        assert (page.dtype, page.compression, page.predictor) == (np.uint16, tifffile.COMPRESSION.ADOBE_DEFLATE, 1)
    assert read_pixel_size(tmp_path / "a.tif") == PixelSize(0.5, 0.25)


@pytest.mark.parametrize("size", [PixelSize(0.3245, 0.3251), PixelSize(12.5, 12.5), PixelSize(0.0071, 0.0071), None])
def test_pixel_sizes(tmp_path, size):
    write_labels(tmp_path / "a.tif", segmentation_of(difficult_crops(), pixel_size=size))
    read = read_pixel_size(tmp_path / "a.tif")
    if size is None:
        assert read is None
    else:
        assert (read.x_um, read.y_um) == pytest.approx((size.x_um, size.y_um), rel=1e-6)


def test_no_cells(tmp_path):
    write_labels(tmp_path / "a.tif", segmentation_of([]))
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), np.zeros((HEIGHT, WIDTH)))


@pytest.mark.parametrize("size", [PixelSize(0.5, 0.5), None])
def test_more_cells_than_16_bits_hold(tmp_path, monkeypatch, size):
    assert (label_dtype(65_535), label_dtype(65_536)) == (np.uint16, np.uint32)
    monkeypatch.setattr(labels, "label_dtype", lambda count: np.uint32)
    segmentation = segmentation_of(difficult_crops(), pixel_size=size)
    write_labels(tmp_path / "a.tif", segmentation)
    written = tifffile.imread(tmp_path / "a.tif")
    assert written.dtype == np.uint32
    assert np.array_equal(written, segmentation.labels)
    assert read_pixel_size(tmp_path / "a.tif") == size


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 50), st.permutations(difficult_crops()))
def test_bands_are_the_label_image(rows, crops):
    bands = list(label_bands(crops, HEIGHT, WIDTH, rows))
    assert all(len(band) == rows for band in bands[:-1])
    assert np.array_equal(np.concatenate(bands), segmentation_of(crops).labels)


def test_the_whole_image_is_never_in_memory(tmp_path):
    side = 2000
    crops = [MaskCrop(1990, 1980, np.ones((10, 20), bool)), MaskCrop(0, 0, np.ones((3, 3), bool))]
    segmentation = Segmentation(Cells(side, side, crops, np.ones(2), np.zeros(2, int)), ["a"])
    tracemalloc.start()
    write_labels(tmp_path / "a.tif", segmentation)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < side * side, "half of the uint16 array"
    corner = tifffile.imread(tmp_path / "a.tif")[-11:, -21:]
    assert corner.sum() == 200
    assert corner[1:, 1:].all()
