"""Write label images as TIFF, which ImageJ, Fiji, napari, QuPath, CellProfiler and every array library open."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from cellseg_d2.export.formats import FORMATS
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.io.outputs import MARK
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import label_dtype, label_image

if TYPE_CHECKING:
    from cellseg_d2.images.pixel_size import PixelSize
    from cellseg_d2.inference.segmentation import Segmentation

# A band of rows is painted, compressed and written at a time.
_BAND_PIXELS = 1 << 18


@FORMATS.register(
    "labels",
    suffix="_labels.tif",
    summary="label image (TIFF): 0 is background, cell i has value i; opens in Fiji, napari, CellProfiler",
)
def write_labels(path: str | Path, segmentation: Segmentation) -> None:
    """Write a label image: 0 is background, cell ``i`` (from 0 on) has the value ``i + 1``.

    The file is written in bands of rows and compressed without loss (zlib), so that even of a mosaic only some hundred
    thousand pixels are in memory. It is uint16 in ImageJ's flavour of TIFF, with the pixel size in µm where that is
    known; of more than 65,535 cells, uint32 with plain resolution tags.

    Args:
        path: path of the TIFF.
        segmentation: the cells; where they overlap, the earlier one shows.
    """
    height, width = segmentation.height, segmentation.width
    dtype = np.dtype(label_dtype(len(segmentation))).newbyteorder(">")  # the order of ImageJ's own files
    rows = max(1, min(height, _BAND_PIXELS // width))
    bands = label_bands(segmentation.crops, height, width, rows)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            (zlib.compress(band.astype(dtype).tobytes(), level=6) for band in bands),
            shape=(height, width),
            dtype=dtype,
            byteorder=">",
            rowsperstrip=rows,
            compression="zlib",
            photometric="minisblack",
            **_calibration(segmentation.pixel_size, imagej=dtype.itemsize == 2),
        )


def label_bands(crops: Sequence[MaskCrop], height: int, width: int, rows: int) -> Iterator[np.ndarray]:
    """The label image of crops from top to bottom, int32 ``(rows, width)`` at a time; the last band may be lower."""
    tops = np.array([crop.box[1] for crop in crops], dtype=np.int64)
    bottoms = np.array([crop.box[3] for crop in crops], dtype=np.int64)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        inside = np.flatnonzero((tops < bottom) & (bottoms > top))
        own = [MaskCrop(crops[i].top - top, crops[i].left, crops[i].mask) for i in inside.tolist()]
        yield np.concatenate([[0], inside + 1]).astype(np.int32)[label_image(own, bottom - top, width)]


def _calibration(pixel_size: PixelSize | None, imagej: bool) -> dict:
    """Arguments of tifffile that say how large a pixel is, and who has written the file."""
    per_um = None if pixel_size is None else (1 / pixel_size.x_um, 1 / pixel_size.y_um)
    if imagej:
        unit = {} if per_um is None else {"unit": "um"}
        return {"imagej": True, "metadata": {**unit, "made": MARK}, "resolution": per_um}
    plain = {"metadata": None, "description": MARK}
    if per_um is None:
        return plain
    return {**plain, "resolution": tuple(value * 1e4 for value in per_um), "resolutionunit": "CENTIMETER"}
