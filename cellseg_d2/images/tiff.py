"""The one reader of TIFF: which of the images in a file is meant, and its values, all of them or those of a part.

Whole images, parts of them, label images, sizes and pixel sizes all come through :class:`TiffImage`, so that they are
always those of the same pixels.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from PIL import UnidentifiedImageError

from cellseg_d2.images.errors import ImageError, check_claim, check_file, clear_errors, stack_error
from cellseg_d2.images.grey import grey_dtype, grey_from_channels, plain_dtype
from cellseg_d2.images.pillow import coloured_labels, grey_of_pillow, labels_of_pillow, with_pillow
from cellseg_d2.images.tiff_segments import SegmentReader

TIFF_SUFFIXES = (".tif", ".tiff")
# What tifffile decodes without a further package.
_BUILTIN = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
logger = logging.getLogger(__name__)


class TiffImage:
    """The image of a TIFF, of which rectangles can be read.

    Of images of several sizes it is the largest one, and a warning says so where the file begins with another, such as
    a thumbnail. Smaller copies that are marked as such, as in pyramids, are passed over.

    Args:
        path: of the file, which stays open until :meth:`close`, or to the end of a ``with`` block.

    Attributes:
        path: of the file.
        page: the page with the image.
        height, width: in pixels.
        colours: number of values of a pixel; 1 is grey, or a palette.
        dtype: of the grey values of all parts: uint8, uint16 or float32.
        in_parts: whether a rectangle is read without reading the whole image.

    Raises:
        ImageError: the file cannot be read, holds no image or a stack, or claims to hold more than its bytes can.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        check_file(self.path)
        with clear_errors(self.path):
            # By these descriptions a file speaks of others: what is read is what is in the file that was named.
            self._file = tifffile.TiffFile(self.path, is_ome=False, is_mmstack=False, is_ndtiff=False)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        series = _largest(self.path, self._file)
        axes = _image_axes(self.path, series)
        pages = [page for page in series.pages if isinstance(page, tifffile.TiffPage)]
        self.page: tifffile.TiffPage = series.keyframe
        self.height, self.width, self.colours = axes["Y"], axes["X"], axes.get("S", 1)
        one = self.page.shaped[0] * self.page.shaped[4]
        if self.page.shaped[1:4] != (1, self.height, self.width) or one * len(pages) != self.colours:
            raise ImageError(f"{self.path} spreads an image over several pages in a way that cannot be read")
        self._palette = self.page.photometric == tifffile.PHOTOMETRIC.PALETTE and self.colours == 1
        self._whole: np.ndarray | None = None
        self.in_parts = not _needs_pillow(self.page) or importlib.util.find_spec("imagecodecs") is not None
        if self.in_parts and self.page.dtype is None:
            raise ImageError(f"{self.path} holds {self.page.bitspersample} bits a pixel, which cannot be read")
        self._segments = [SegmentReader(page) for page in pages] if self.in_parts else []

    @property
    def dtype(self) -> np.dtype:
        if not self.in_parts:
            return grey_dtype(self._by_pillow().dtype)
        return np.dtype(np.uint8) if self._palette else grey_dtype(np.dtype(self.page.dtype))

    def grey(self, rows: slice | None = None, columns: slice | None = None) -> np.ndarray:
        """Grey values ``(h, w)`` of a rectangle, by default of the whole image; a dtype as of :func:`plain_dtype`.

        Raises:
            ImageError: the file is damaged there.
        """
        rows, columns = rows or slice(0, self.height), columns or slice(0, self.width)
        with clear_errors(self.path):
            if not self.in_parts:
                return self._by_pillow()[rows, columns]
            values = self._stored(rows, columns)
            if self.colours > 1:
                return grey_from_channels(values)
            if self._palette and self.page.colormap is not None:
                return grey_from_channels(np.moveaxis(self.page.colormap[:, values], 0, -1) >> 8).astype(np.uint8)
            if self.page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind in "bu":
                values = ~values
            return plain_dtype(values)

    def labels(self) -> np.ndarray:
        """All values ``(H, W)`` as they are stored; of a palette its indices.

        Raises:
            ImageError: the image has colours, or the file is damaged.
        """
        if self.colours > 1:
            raise coloured_labels(self.path)
        with clear_errors(self.path):
            if not self.in_parts:
                return with_pillow(self.path, labels_of_pillow, self.page.index)
            return self._stored(slice(0, self.height), slice(0, self.width))

    @property
    def first_description(self) -> str:
        """What the first page says of the file, such as OME-XML; empty where it says nothing."""
        return self._file.pages.first.description

    @property
    def imagej(self) -> dict | None:
        """What ImageJ says of the file; None where it did not write it."""
        return (self._file.imagej_metadata or {}) if self._file.is_imagej else None

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        for segments in self._segments:
            segments.close()
        self._file.close()

    def __enter__(self) -> TiffImage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stored(self, rows: slice, columns: slice) -> np.ndarray:
        """Values ``(h, w)`` or ``(h, w, S)`` in the machine's own order of bytes, in an array of their own."""
        blocks = [segments.read(rows, columns) for segments in self._segments]
        block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=2)
        return np.array(block[:, :, 0] if self.colours == 1 else block, dtype=block.dtype.newbyteorder("="))

    def _by_pillow(self) -> np.ndarray:
        """The grey values of the whole image; libtiff, by which Pillow reads it, knows most compressions."""
        if self._whole is None:
            with clear_errors(self.path):
                try:
                    self._whole = with_pillow(self.path, grey_of_pillow, self.page.index)
                except UnidentifiedImageError:
                    raise self.needs_package("cannot be read") from None
        return self._whole

    def needs_package(self, what: str) -> ImageError:
        """The error of a compression that a further package reads, in parts or at all."""
        kind = getattr(self.page.compression, "name", self.page.compression)  # a number, if nobody knows it
        return ImageError(
            f"{self.path} is compressed ({kind}) in a way that {what}: "
            "type `pip install imagecodecs`, or save it with deflate or without compression"
        )


def _largest(path: Path, tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The series of pages with the image."""
    found = [series for series in tiff.series if len(series.pages)]
    if not found:
        raise ImageError(f"{path} holds no image")
    size = path.stat().st_size
    whole = [series for series in found if not (series.keyframe.is_reduced or series.keyframe.is_mask)] or found
    chosen = max(whole, key=lambda series: math.prod(series.shape))  # the first one of several
    check_claim(path, chosen.shape, math.prod(chosen.shape), size)
    if (count := sum(series.shape == chosen.shape for series in whole)) > 1:
        raise stack_error(path, (count, *chosen.shape))
    if chosen is not whole[0]:
        _tell(path, _shown(whole[0].shape), _shown(chosen.shape))
    return chosen


@cache
def _tell(path: Path, first: str, chosen: str) -> None:
    """Once, however often the file is read."""
    logger.warning("%s begins with an image of %s pixels; read is its largest one, of %s", path, first, chosen)


def _shown(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _image_axes(path: Path, series: tifffile.TiffPageSeries) -> dict[str, int]:
    """Lengths by name of the axes Y and X, and of S for colours."""
    axes = {name: n for n, name in zip(series.shape, series.axes, strict=True) if n > 1 or name in "YX"}
    names = "".join(axes)
    if names not in ("YX", "YXS", "SYX") or axes.get("S", 2) not in (2, 3, 4):
        raise stack_error(path, series.shape)
    return axes


def _needs_pillow(page: tifffile.TiffPage) -> bool:
    """Compressions that tifffile only reads with a further package (LZW, JPEG, PackBits …); libtiff knows them."""
    return page.compression not in _BUILTIN or page.predictor != 1
