"""Whatever users hand over as an image, or as a stack of images, with its axes.

An array that names its axes (xarray's ``dims``, Zarr's ``dimension_names``) is understood by these names. Of others the
shape may tell:

- Axes of length 1 are dropped, as long as two are left.
- Two axes are rows and columns.
- Of more, a last axis of length 3 or 4 holds the colours of pixels, RGB with or without alpha, and one of length 2
  channels; the two before it are rows and columns. Else the last two are rows and columns.
- Those before may hold channels, planes or colours, which no shape tells: see :mod:`cellseg_d2.images.axes` for how the
  caller does.

Colours become grey as in files (:func:`cellseg_d2.images.read.read_image`), weighted as of ITU-R BT.601; alpha is
ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from cellseg_d2.errors import first_line
from cellseg_d2.images.axes import (
    ONE_PLANE,
    AxesError,
    Layout,
    PlaneChoice,
    axis_names,
    renamed,
    shape_text,
    unknown_names,
)
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.grey import grey_dtype, grey_from_channels, plain_dtype
from cellseg_d2.images.pillow import colours_of_pillow, grey_of_pillow
from cellseg_d2.images.stored import StoredImage

COLOURS = (3, 4)


class ArrayError(ImageError):
    """An array that cannot be understood as a grey image, or as a stack of them."""


class SlicedArray(Protocol):
    """What is sliced like a NumPy array: a memory map, a Zarr array, an HDF5 dataset."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class StoredArray(StoredImage):
    """Anything that is sliced like a NumPy array.

    Args:
        array: has ``shape`` and ``dtype``.
        layout: of its axes.
        origin: where the values come from, for messages.

    Raises:
        ArrayError: the values are no real numbers.
    """

    def __init__(self, array: SlicedArray, layout: Layout, origin: str | Path = "the array"):
        self._array = array
        self.layout, self.origin = layout, origin
        self.dtype = grey_dtype(np.dtype(array.dtype))

    def grey(self, place: Mapping[str, int], rows: slice, columns: slice) -> np.ndarray:
        """See :meth:`StoredImage.grey`."""
        of_axis = {**place, "Y": rows, "X": columns}
        block = np.asarray(self._array[tuple(of_axis.get(name, slice(None)) for name in self.layout.names)])
        kept = [name for name in self.layout.names if name in "YX" or (name == "S" and "S" not in place)]
        block = block.transpose([kept.index(name) for name in ("Y", "X", "S") if name in kept])
        return grey_from_channels(block) if "S" in kept else plain_dtype(block)


def as_stored(
    image: ArrayLike | Image.Image, *, channel_axis: int | None = None, choice: PlaneChoice = ONE_PLANE
) -> StoredArray:
    """An array of any kind, with the meaning of its axes.

    Args:
        image: an array, or what can become one: lists, tensors, pictures of Pillow; see :func:`as_array`. What is
            sliced like an array is not read.
        channel_axis: which axis holds colours, if it has a length of 3 or 4, else channels.
        choice: may name the axes.

    Raises:
        ArrayError: it is no image.
        AxesError: the axes could mean several things.
    """
    if isinstance(image, Image.Image) and choice.channel is not None:
        return stored_colours(image)
    lazy = isinstance(getattr(image, "dtype", None), np.dtype) and not isinstance(image, np.ma.MaskedArray)
    array = cast(SlicedArray, image) if lazy else as_array(image)
    return StoredArray(array, array_layout(array.shape, channel_axis, choice, _own_names(image)))


def stored_colours(image: Image.Image, origin: str | Path = "the image") -> StoredArray:
    """A picture of Pillow with its colours, of which one can be chosen."""
    array = colours_of_pillow(image)
    return StoredArray(array, Layout("YXS"[: array.ndim], array.shape), origin)


def array_layout(
    shape: Sequence[int],
    channel_axis: int | None = None,
    choice: PlaneChoice = ONE_PLANE,
    names: str | None = None,
    origin: str | Path = "the array",
) -> Layout:
    """What the axes of an array of this shape mean, by the rules of this module.

    Args:
        shape: lengths of the axes.
        channel_axis: see :func:`as_stored`; may be negative.
        choice: may name the axes.
        names: of the axes, if the array tells them.
        origin: for messages.

    Raises:
        ArrayError: the shape is that of no image.
        AxesError: it could mean several things.
    """
    shape = tuple(shape)
    if len(shape) < 2:
        raise ArrayError(f"an image has rows and columns, but the shape of {origin} is {shape_text(shape)}")
    if 0 in shape:
        raise ArrayError(f"{origin} of shape {shape_text(shape)} holds no pixels")
    if choice.axes is not None:
        return renamed(Layout(unknown_names(len(shape)), shape), choice.axes, origin)
    if names is not None and channel_axis is None:
        return Layout(names, shape)
    letters = list(unknown_names(len(shape)))
    channels = None if channel_axis is None else _checked_channel_axis(shape, channel_axis)
    rest = [axis for axis in range(len(shape)) if axis != channels]
    long = [axis for axis in rest if shape[axis] > 1]
    # An image of a single row or column needs its axis of length 1 back: the last one, as in (1, 1, W).
    short = [axis for axis in rest if axis not in long]
    while len(long) < 2 and short:
        long = sorted([*long, short.pop()])
    if channel_axis is None and len(long) > 2 and shape[long[-1]] in (2, *COLOURS):
        channels = long.pop()
        if len(long) == 2 and not choice.stack and shape[long[0]] in (2, *COLOURS):
            raise AxesError(
                f"shape {shape_text(shape)} could have its channels first or last: name its axes with axes='CYX' or "
                "axes='YXC'"
            )
    letters[long[-2]], letters[long[-1]] = "Y", "X"
    if channels is not None:
        letters[channels] = "S" if shape[channels] in COLOURS else "C"
    return Layout("".join(letters), shape)


def as_array(image: ArrayLike | Image.Image) -> np.ndarray:
    """An array of bool, integers or floats in any shape; masked pixels become not-a-number.

    Tensors come to the CPU, without their gradients; pictures of Pillow become grey, also those with a palette.

    Raises:
        ArrayError: it cannot become one.
    """
    if isinstance(image, Image.Image):
        return grey_of_pillow(image)
    try:
        array = np.asarray(cast(Any, image).detach().cpu() if hasattr(image, "detach") else image)
    except MemoryError:
        raise
    except Exception as error:  # ragged lists, tensors of odd types: every library has its own exception
        raise ArrayError(f"what was given as an image cannot become a NumPy array ({first_line(error)})") from None
    if array.dtype.kind not in "buif":
        hint = "; read files with read_image" if array.dtype.kind in "US" else ""
        raise ArrayError(f"pixels are real numbers or bool, but this array is of type {array.dtype}{hint}")
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        array = np.where(np.ma.getmaskarray(image), np.float32(np.nan), array.astype(np.float32))
    return array


def project(planes: Iterable[np.ndarray], projection: str | None) -> np.ndarray:
    """Planes of one shape and type as one: the only one, or their maximum or mean, which of integers is rounded."""
    planes = iter(planes)
    first = next(planes)
    if projection is None:
        return first
    if projection == "max":
        result = first.copy()
        for plane in planes:
            np.maximum(result, plane, out=result)
        return result
    count, total = 1, first.astype(np.float64)
    for plane in planes:
        count, total = count + 1, np.add(total, plane, out=total)
    total /= count
    return (np.rint(total) if first.dtype.kind in "iu" else total).astype(first.dtype)


def _own_names(image: object) -> str | None:
    """The axes that an array names itself, if it does."""
    words = getattr(image, "dims", None) or getattr(getattr(image, "metadata", None), "dimension_names", None)
    return axis_names(words) if isinstance(words, tuple | list) else None


def _checked_channel_axis(shape: tuple[int, ...], channel_axis: int) -> int | None:
    if not -len(shape) <= channel_axis < len(shape):
        raise ArrayError(f"channel_axis is {channel_axis}, but an array of shape {shape_text(shape)} has no such axis")
    channel_axis %= len(shape)
    if len(shape) < 3:
        raise ArrayError(f"shape {shape_text(shape)} leaves no rows and columns beside channel_axis {channel_axis}")
    return None if shape[channel_axis] == 1 else channel_axis
