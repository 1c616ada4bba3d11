"""Images that need not fit into memory: only the part that is asked for is read, as one grey plane.

A source knows its size and reads rectangles. Arrays and memory maps, uncompressed TIFFs (mapped into memory), tiled or
stripped TIFFs (only the tiles or strips that a rectangle touches are decoded) and Zarr arrays are read in place; PNG,
JPEG and BMP have no parts that could be read alone and are read whole. Of images with several channels or planes, those
that are wanted are found by the rules of :mod:`cellseg_d2.images.axes`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.arrays import StoredArray, as_stored, project, stored_colours
from cellseg_d2.images.axes import ONE_PLANE, Layout, Plane, PlaneChoice, choose_planes
from cellseg_d2.images.errors import check_file, clear_errors, closed_on_error
from cellseg_d2.images.intensity import intensity_range
from cellseg_d2.images.microscope import MICROSCOPE_SUFFIXES, open_microscope
from cellseg_d2.images.pillow import with_pillow
from cellseg_d2.images.read import read_image
from cellseg_d2.images.stored import StoredImage
from cellseg_d2.images.tiff import TIFF_SUFFIXES, TiffImage
from cellseg_d2.images.zarr_image import open_zarr

# Larger TIFFs are not read whole where their parts cannot be decoded: 64 megapixels.
_WHOLE_LIMIT = 2**26
# Percentiles are those of all pixels up to _BLOCKS² blocks of _BLOCK² pixels, and of as many blocks in larger images.
_BLOCK, _BLOCKS = 256, 8


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


class PlaneSource(ImageSource):
    """One grey plane of a stored image.

    Args:
        stored: the image; closed with this source.
        plane: of :func:`cellseg_d2.images.axes.choose_planes`.
    """

    def __init__(self, stored: StoredImage, plane: Plane):
        self.origin, self.dtype = stored.origin, stored.dtype
        self.height, self.width = stored.layout.height, stored.layout.width
        self._stored, self._plane = stored, plane

    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        blocks = (self._stored.grey(place, rows, columns).astype(self.dtype) for place in self._plane.stored)
        return project(blocks, self._plane.projection)

    def close(self) -> None:
        self._stored.close()


def open_stored(
    image: ArrayLike | Image.Image | str | Path,
    *,
    channel_axis: int | None = None,
    choice: PlaneChoice = ONE_PLANE,
) -> StoredImage:
    """Any image with all its axes, with as little of it in memory as its format allows.

    Args:
        image: a path of a TIFF, of a microscope's own file (CZI, LIF, ND2), of a Zarr folder (an array, or an OME-Zarr
            image, whose full resolution is taken), or of any other image file, which is read whole; or anything that is
            sliced like an array.
        channel_axis: of an array or a Zarr array without names of axes, see
            :func:`cellseg_d2.images.arrays.as_stored`.
        choice: may name the axes and the scene; whether a channel is wanted decides whether colours are kept.

    Raises:
        CellSegError: the file cannot be read, or the array is no image.
    """
    if not isinstance(image, str | Path):
        return as_stored(image, channel_axis=channel_axis, choice=choice)
    path = Path(image)
    if path.is_dir():
        return open_zarr(path, channel_axis=channel_axis, choice=choice)
    if channel_axis is not None:
        raise CellSegError(f"{path} says itself where its channels are; channel_axis is for arrays")
    if path.suffix.lower() in TIFF_SUFFIXES:
        tiff = TiffImage(path, choice)
        if not tiff.in_parts and tiff.layout.height * tiff.layout.width > _WHOLE_LIMIT:
            tiff.close()
            raise tiff.needs_package("cannot be read in parts")
        return tiff
    if path.suffix.lower() in MICROSCOPE_SUFFIXES:
        return open_microscope(path, choice)
    if choice.channel is not None:
        check_file(path)
        with clear_errors(path):
            return with_pillow(path, lambda picture: stored_colours(picture, path))
    grey = read_image(path)
    return StoredArray(grey, Layout("YX", grey.shape), path)


def open_source(
    image: ImageSource | ArrayLike | Image.Image | str | Path,
    *,
    channel_axis: int | None = None,
    choice: PlaneChoice = ONE_PLANE,
) -> ImageSource:
    """One grey plane of any image as a source.

    Args:
        image: see :func:`open_stored`; or a source, which is returned as it is.
        channel_axis: see :func:`open_stored`.
        choice: which plane is wanted of an image with several; no stack.

    Raises:
        CellSegError: the file cannot be read, the array is no image, or which plane is wanted is not clear.

    Example:
        >>> with open_source(np.zeros((200, 300, 3), np.uint8)) as source:
        ...     source.read(10, 20, 30, 40).shape
        (30, 40)
    """
    if isinstance(image, ImageSource):
        return image
    stored = open_stored(image, channel_axis=channel_axis, choice=choice)
    with closed_on_error(stored):
        return PlaneSource(stored, choose_planes(stored.layout, choice, stored.origin)[0])


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
