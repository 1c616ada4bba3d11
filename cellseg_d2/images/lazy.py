"""Images that need not fit into memory: only the part that is asked for is read, as one grey plane.

A source knows its size and reads rectangles. Arrays and memory maps, uncompressed TIFFs (mapped into memory), tiled or
stripped TIFFs (only the tiles or strips that a rectangle touches are decoded) and Zarr arrays are read in place; PNG,
JPEG and BMP have no parts that could be read alone and are read whole.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import tifffile
from numpy.typing import ArrayLike

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.arrays import as_array, image_axes
from cellseg_d2.images.intensity import intensity_range
from cellseg_d2.images.read import (
    TIFF_SUFFIXES,
    ImageError,
    clear_errors,
    grey_from_channels,
    grey_of_page,
    image_size,
    needs_pillow,
    read_image,
    tiff_layout,
)
from cellseg_d2.images.tiff_segments import SegmentReader
from cellseg_d2.images.zarr_metadata import find_array

# Larger TIFFs are not read whole where their parts cannot be decoded: 64 megapixels.
_WHOLE_LIMIT = 2**26
# Percentiles are those of all pixels up to _BLOCKS² blocks of _BLOCK² pixels, and of as many blocks in larger images.
_BLOCK, _BLOCKS = 256, 8


class SlicedArray(Protocol):
    """What is sliced like a NumPy array: a memory map, a Zarr array, an HDF5 dataset."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class ImageSource(ABC):
    """A grey image of which rectangles can be read.

    Sources of files keep them open until :meth:`close`, or to the end of a ``with`` block.

    Attributes:
        height, width: in pixels.
        dtype: of what is read: uint8, uint16 or float32. It follows from the type of the stored values alone, so that
            all parts of an image have the same.
    """

    height: int
    width: int
    dtype: np.dtype

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """The grey values ``(height, width)`` of a rectangle whose first pixel is in row ``top``, column ``left``.

        Raises:
            ValueError: the rectangle is empty or not inside the image.
            CellSegError: the file is damaged there.
        """
        if not (0 <= top < top + height <= self.height and 0 <= left < left + width <= self.width):
            raise ValueError(
                f"{height} × {width} pixels from row {top}, column {left} are no part of an image of "
                f"{self.height} × {self.width} pixels"
            )
        return self._read(slice(top, top + height), slice(left, left + width))

    @abstractmethod
    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        """The grey values of a rectangle inside the image, of ``dtype``."""

    def close(self) -> None:  # noqa: B027 - most sources have nothing to close
        """Close the file, where there is one. Nothing can be read afterwards."""

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ArraySource(ImageSource):
    """Anything that is sliced like a NumPy array: an array, a memory map, a Zarr array, an HDF5 dataset.

    Args:
        array: one image with axes as of :func:`cellseg_d2.images.arrays.as_grey`; has ``shape`` and ``dtype``.
        channel_axis: which axis holds the channels, where its place or length would not tell.

    Raises:
        cellseg_d2.images.arrays.ArrayError: the shape or type is not that of an image.
    """

    def __init__(self, array: SlicedArray, *, channel_axis: int | None = None):
        self._array = array
        self._axes = image_axes(array.shape, channel_axis)
        self.height, self.width = array.shape[self._axes.rows], array.shape[self._axes.columns]
        self.dtype = _grey_dtype(np.dtype(array.dtype))

    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        index: list = [0] * len(self._array.shape)
        index[self._axes.rows], index[self._axes.columns] = rows, columns
        if self._axes.channels is None:
            return self._grey(np.asarray(self._array[tuple(index)]))
        index[self._axes.channels] = slice(None)
        block = np.asarray(self._array[tuple(index)])
        place = sorted((self._axes.rows, self._axes.columns, self._axes.channels)).index(self._axes.channels)
        return self._grey(np.moveaxis(block, place, -1))

    def _grey(self, block: np.ndarray) -> np.ndarray:
        block = _as_dtype(block, self.dtype)
        return grey_from_channels(block) if block.ndim == 3 else block


class TiffSource(ImageSource):
    """The first image of a TIFF, at its full resolution where it holds several.

    Args:
        path: of the file.

    Raises:
        ImageError: the file cannot be read, holds a stack, or is compressed in a way that needs another package.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        with clear_errors(self._path):
            self._file = tifffile.TiffFile(self._path)
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise

    def _open(self) -> None:
        self._page, axes = tiff_layout(self._path, self._file)
        if needs_pillow(self._page) and importlib.util.find_spec("imagecodecs") is None:
            kind = getattr(self._page.compression, "name", self._page.compression)  # a number, if nobody knows it
            raise ImageError(
                f"{self._path} is compressed ({kind}) in a way that cannot be read in parts: "
                "type `pip install imagecodecs`, or save it with deflate or without compression"
            )
        sizes = {name: n for n, name in axes}
        self.height, self.width = sizes["Y"], sizes["X"]
        if self._page.shaped[1:4] != (1, self.height, self.width):
            raise ImageError(f"{self._path} spreads an image over several pages, which cannot be read in parts")
        if self._page.dtype is None:
            raise ImageError(f"{self._path} holds {self._page.bitspersample} bits a pixel, which cannot be read")
        palette = self._page.photometric == tifffile.PHOTOMETRIC.PALETTE and "S" not in sizes
        self.dtype = np.dtype(np.uint8) if palette else _grey_dtype(self._page.dtype)
        # Palettes and images whose zero is white are interpreted before the type changes.
        self._as_stored = palette or self._page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        self._segments = SegmentReader(self._page)

    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        with clear_errors(self._path):
            block = self._segments.read(rows, columns)
            if block.shape[2] == 1:
                block = block[:, :, 0]
            if not self._as_stored:
                block = _as_dtype(block, self.dtype)
            return _as_dtype(grey_of_page(self._page, block), self.dtype)

    def close(self) -> None:
        self._segments.close()
        self._file.close()


def open_source(image: ImageSource | ArrayLike | str | Path, *, channel_axis: int | None = None) -> ImageSource:
    """Any image as a source, with as little of it in memory as its format allows.

    Args:
        image: a path of a TIFF, of a Zarr folder (an array, or an OME-Zarr image, whose full resolution is taken), or
            of any other image file, which is read whole; anything that is sliced like an array; or a source, which is
            returned as it is.
        channel_axis: of an array or a Zarr array, see :func:`cellseg_d2.images.arrays.as_grey`.

    Raises:
        CellSegError: the file cannot be read, or the array is no single image.

    Example:
        >>> with open_source(np.zeros((200, 300, 3), np.uint8)) as source:
        ...     source.read(10, 20, 30, 40).shape
        (30, 40)
    """
    if isinstance(image, ImageSource):
        return image
    if not isinstance(image, str | Path):
        lazy = isinstance(getattr(image, "dtype", None), np.dtype) and not isinstance(image, np.ma.MaskedArray)
        return ArraySource(cast(SlicedArray, image) if lazy else as_array(image), channel_axis=channel_axis)
    path = Path(image)
    if path.is_dir():
        return ArraySource(_open_zarr(path), channel_axis=channel_axis)
    if channel_axis is not None:
        raise CellSegError(f"{path} says itself where its channels are; channel_axis is for arrays")
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return ArraySource(read_image(path))
    height, width = image_size(path)  # says clearly what is wrong with a file that is no image
    try:
        return TiffSource(path)
    except ImageError:
        if height * width > _WHOLE_LIMIT:
            raise
        return ArraySource(read_image(path))


def sample_percentiles(source: ImageSource, percentiles: Sequence[float]) -> tuple[float, ...]:
    """Percentiles of an image's values, so that all its tiles can be stretched alike.

    Of images of up to 2048 × 2048 pixels, or as many in another shape, these are of all pixels; of larger ones, of
    blocks spread evenly over the image, whose number does not grow with it.

    Args:
        source: the image.
        percentiles: 0 … 100.

    Raises:
        CellSegError: no pixel that was read is finite.
    """
    if source.height * source.width <= (_BLOCK * _BLOCKS) ** 2:
        values = source.read(0, 0, source.height, source.width)
    else:
        high, wide = _block_counts(source.height, source.width)
        h, w = min(_BLOCK, source.height), min(_BLOCK, source.width)
        tops = np.linspace(0, source.height - h, high).round().astype(int)
        lefts = np.linspace(0, source.width - w, wide).round().astype(int)
        values = np.stack([source.read(top, left, h, w) for top in tops.tolist() for left in lefts.tolist()])
    return tuple(intensity_range(values, percentiles).tolist())


def _block_counts(height: int, width: int) -> tuple[int, int]:
    """Blocks down and across, about _BLOCKS² in all and as dense in both directions."""
    high = int(np.clip(round(_BLOCKS * (height / width) ** 0.5), 1, _BLOCKS**2))
    return high, max(1, _BLOCKS**2 // high)


def _grey_dtype(dtype: np.dtype) -> np.dtype:
    """The type of grey values for stored values of this type, whatever they are."""
    if dtype.kind not in "buif":
        raise CellSegError(f"pixels are real numbers or bool, but this image is of type {dtype}")
    if dtype.itemsize == 1 and dtype.kind in "bu":
        return np.dtype(np.uint8)
    return np.dtype(np.uint16 if dtype.kind == "u" and dtype.itemsize == 2 else np.float32)


def _as_dtype(block: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if block.dtype == bool:
        return block.astype(np.uint8) * np.uint8(255)
    return block.astype(dtype, copy=False)


def _open_zarr(path: Path) -> SlicedArray:
    array = find_array(path)
    try:
        import zarr
    except ImportError:
        raise ImageError(f"{path} is a Zarr array, which needs another package: type `pip install zarr`") from None
    with clear_errors(path):
        return zarr.open_array(array.folder, mode="r", zarr_format=array.version)
