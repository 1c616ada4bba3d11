"""Images that need not fit into memory: only the part that is asked for is read, as one grey plane.

A source knows its size and reads rectangles. Arrays and memory maps, uncompressed TIFFs (mapped into memory), tiled or
stripped TIFFs (only the tiles or strips that a rectangle touches are decoded) and Zarr arrays are read in place; PNG,
JPEG and BMP have no parts that could be read alone and are read whole.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.arrays import as_array, image_axes
from cellseg_d2.images.errors import ImageError, check_claim, clear_errors
from cellseg_d2.images.grey import grey_dtype, grey_from_channels, plain_dtype
from cellseg_d2.images.intensity import intensity_range
from cellseg_d2.images.read import read_image
from cellseg_d2.images.tiff import TIFF_SUFFIXES, TiffImage
from cellseg_d2.images.zarr_metadata import find_array

# Larger TIFFs are not read whole where their parts cannot be decoded: 64 megapixels.
_WHOLE_LIMIT = 2**26
# Percentiles are those of all pixels up to _BLOCKS² blocks of _BLOCK² pixels, and of as many blocks in larger images.
_BLOCK, _BLOCKS = 256, 8
# A folder with so much in it may claim a terapixel (see check_claim); what more it holds need not be counted.
_ENOUGH_BYTES = 2**26


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
        origin: where the values come from, for messages: a path, or some words.
    """

    height: int
    width: int
    dtype: np.dtype
    origin: str | Path = "the array"

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """The grey values ``(height, width)`` of a rectangle whose first pixel is in row ``top``, column ``left``.

        Raises:
            ValueError: the rectangle is empty or not inside the image.
            CellSegError: the file is damaged there. What it is read by may find that out only now, long after it has
                been opened, and in any error of its own.
        """
        if not (0 <= top < top + height <= self.height and 0 <= left < left + width <= self.width):
            raise ValueError(
                f"{height} × {width} pixels from row {top}, column {left} are no part of an image of "
                f"{self.height} × {self.width} pixels"
            )
        with clear_errors(self.origin):
            return self._read(slice(top, top + height), slice(left, left + width)).astype(self.dtype, copy=False)

    @abstractmethod
    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        """The grey values of a rectangle inside the image."""

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
        origin: where the values come from, for messages.

    Raises:
        cellseg_d2.images.arrays.ArrayError: the shape or type is not that of an image.
    """

    def __init__(self, array: SlicedArray, *, channel_axis: int | None = None, origin: str | Path = ImageSource.origin):
        self.origin = origin
        self._array = array
        self._axes = image_axes(array.shape, channel_axis)
        self.height, self.width = array.shape[self._axes.rows], array.shape[self._axes.columns]
        self.dtype = grey_dtype(np.dtype(array.dtype))

    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        index: list = [0] * len(self._array.shape)
        index[self._axes.rows], index[self._axes.columns] = rows, columns
        if self._axes.channels is None:
            return plain_dtype(np.asarray(self._array[tuple(index)]))
        index[self._axes.channels] = slice(None)
        block = np.asarray(self._array[tuple(index)])
        place = sorted((self._axes.rows, self._axes.columns, self._axes.channels)).index(self._axes.channels)
        return grey_from_channels(np.moveaxis(block, place, -1))


class TiffSource(ImageSource):
    """The image of a TIFF, see :class:`cellseg_d2.images.tiff.TiffImage`.

    Args:
        path: of the file.

    Raises:
        ImageError: the file cannot be read, holds a stack, or is large and compressed in a way that needs another
            package.
    """

    def __init__(self, path: str | Path):
        self._image = TiffImage(path)
        self.origin, self.height, self.width = self._image.path, self._image.height, self._image.width
        try:
            if not self._image.in_parts and self.height * self.width > _WHOLE_LIMIT:
                raise self._image.needs_package("cannot be read in parts")
            self.dtype = self._image.dtype
        except BaseException:
            self.close()
            raise

    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        return self._image.grey(rows, columns)

    def close(self) -> None:
        self._image.close()


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
        return ArraySource(_open_zarr(path), channel_axis=channel_axis, origin=path)
    if channel_axis is not None:
        raise CellSegError(f"{path} says itself where its channels are; channel_axis is for arrays")
    if path.suffix.lower() in TIFF_SUFFIXES:
        return TiffSource(path)
    return ArraySource(read_image(path), origin=path)


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


def _open_zarr(path: Path) -> SlicedArray:
    found = find_array(path)
    try:
        import zarr
    except ImportError:
        raise ImageError(f"{path} is a Zarr array, which needs another package: type `pip install zarr`") from None
    with clear_errors(path):
        array = zarr.open_array(found.folder, mode="r", zarr_format=found.version)
        # A chunk is unpacked as a whole, however small the image is.
        claimed = max(array.shape, array.shards or array.chunks, key=math.prod)
        check_claim(path, claimed, math.prod(claimed), _bytes_of(path))
        return array


def _bytes_of(folder: Path) -> int:
    """Bytes of all files, or of so many that no image that memory holds is too large for them."""
    size = 0
    for file in folder.rglob("*"):
        size += file.stat().st_size if file.is_file() else 0
        if size > _ENOUGH_BYTES:
            break
    return size
