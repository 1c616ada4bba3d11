"""Whatever users hand over as an image, or as a stack of images, as grey planes.

The rules, for all that NumPy takes for an array of numbers:

- Axes of length 1 are dropped, as long as two are left.
- Two axes are rows and columns.
- Of three, an axis of length 2, 3 or 4 at one end holds the channels, the other two are rows and columns. Where both
  ends could hold them, or neither, only ``channel_axis`` can tell. In a stack, channels are looked for at the last end
  only: what comes first are planes.
- Four axes are a stack in colours: planes, rows, columns, and 2, 3 or 4 channels. Else ``channel_axis`` is needed.

Channels become grey as in files (:func:`cellseg_d2.images.read.read_image`): three are RGB, weighted as of ITU-R
BT.601, a fourth is transparency and ignored, and of two the first is taken. Fluorescence channels are no colours: hand
over the one in which cells are seen, ``image[..., 0]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cellseg_d2.errors import CellSegError, first_line
from cellseg_d2.images.grey import grey_from_channels, plain_dtype

CHANNELS = (2, 3, 4)


class ArrayError(CellSegError):
    """An array that cannot be understood as a grey image, or as a stack of them."""


@dataclass(frozen=True)
class ImageAxes:
    """What the axes of an array mean; those that are not named have length 1.

    Attributes:
        rows, columns: indices of the axes.
        channels: index of the axis of the channels, or None.
        planes: index of the axis along which the planes of a stack lie, or None.
    """

    rows: int
    columns: int
    channels: int | None = None
    planes: int | None = None


def as_grey(image: ArrayLike, *, channel_axis: int | None = None) -> np.ndarray:
    """One image as one grey plane.

    Args:
        image: an array, or what can become one (lists, tensors on the CPU …): ``(H, W)``, ``(H, W, C)`` or
            ``(C, H, W)`` with 2 to 4 channels, with any further axes of length 1; bool, any integer or float type.
            Masked pixels become not-a-number.
        channel_axis: which axis holds the channels, where its place or length would not tell.

    Returns:
        ``(H, W)`` uint8, uint16 or float32, the same as if the image had been read from a file. It may share memory
        with ``image``.

    Raises:
        ArrayError: there are no pixels, none is finite, the type is no real number, or the shape is that of a stack or
            could mean several things.

    Example:
        >>> as_grey([[[7, 9]], [[8, 1]]]).shape, as_grey(np.zeros((3, 40, 50))).shape
        ((2, 2), (40, 50))
    """
    array = as_array(image)
    axes = image_axes(array.shape, channel_axis)
    grey = _grey(array, axes, (axes.rows, axes.columns))
    if not _any_finite(grey):
        raise ArrayError(f"the image of shape {_shape_text(array.shape)} has no finite pixel")
    return grey


def as_planes(images: ArrayLike, *, channel_axis: int | None = None) -> np.ndarray:
    """A stack, a time series, or a single image, as grey planes.

    Args:
        images: as of :func:`as_grey`: ``(N, H, W)``, ``(N, H, W, C)``, ``(H, W)`` or ``(H, W, C)``.
        channel_axis: which axis holds the channels; then of the others the first are the planes, if there are three.

    Returns:
        ``(N, H, W)`` uint8, uint16 or float32, the same type for all planes; N is 1 for a single image.

    Raises:
        ArrayError: as of :func:`as_grey`; a plane without a finite pixel is named.
    """
    array = as_array(images)
    axes = image_axes(array.shape, channel_axis, stack=True)
    order = (axes.rows, axes.columns) if axes.planes is None else (axes.planes, axes.rows, axes.columns)
    planes = _grey(array, axes, order)
    planes = planes if planes.ndim == 3 else planes[None]
    for number, plane in enumerate(planes):
        if not _any_finite(plane):
            raise ArrayError(f"plane {number} of the stack of shape {_shape_text(array.shape)} has no finite pixel")
    return planes


def image_axes(shape: Sequence[int], channel_axis: int | None = None, *, stack: bool = False) -> ImageAxes:
    """What the axes of an array of this shape mean, by the rules of this module.

    Args:
        shape: lengths of the axes.
        channel_axis: see :func:`as_grey`; may be negative.
        stack: whether several planes are welcome.

    Raises:
        ArrayError: the shape is that of no image, or could mean several things.
    """
    shape = tuple(shape)
    if len(shape) < 2:
        raise ArrayError(f"an image has rows and columns, but the shape of this array is {_shape_text(shape)}")
    if 0 in shape:
        raise ArrayError(f"an array of shape {_shape_text(shape)} holds no pixels")
    channels = None if channel_axis is None else _checked_channel_axis(shape, channel_axis)
    rest = [axis for axis in range(len(shape)) if axis != channels]
    long = [axis for axis in rest if shape[axis] > 1]
    # An image of a single row or column needs its axis of length 1 back: the last one, as in (1, 1, W).
    short = [axis for axis in rest if axis not in long]
    while len(long) < 2 and short:
        long = sorted([*long, short.pop()])
    if channel_axis is None:
        long, channels = _split_channels(shape, long, stack)
    if len(long) == 2:
        return ImageAxes(long[0], long[1], channels)
    if len(long) == 3 and stack:
        return ImageAxes(long[1], long[2], channels, long[0])
    if len(long) == 3:
        raise ArrayError(
            f"shape {_shape_text(shape)} is that of a stack of {shape[long[0]]} planes: segment them one by one, or "
            "name the axis of the channels with channel_axis"
        )
    kind = "a stack of images" if stack else "an image"
    raise ArrayError(f"shape {_shape_text(shape)} cannot be understood as {kind}: take out the planes to be segmented")


def _checked_channel_axis(shape: tuple[int, ...], channel_axis: int) -> int | None:
    if not -len(shape) <= channel_axis < len(shape):
        raise ArrayError(f"channel_axis is {channel_axis}, but an array of shape {_shape_text(shape)} has no such axis")
    channel_axis %= len(shape)
    if len(shape) < 3:
        raise ArrayError(f"shape {_shape_text(shape)} leaves no rows and columns beside channel_axis {channel_axis}")
    if shape[channel_axis] == 1:
        return None
    if shape[channel_axis] not in CHANNELS:
        raise ArrayError(
            f"axis {channel_axis} of shape {_shape_text(shape)} has {shape[channel_axis]} channels; grey can be made "
            "of 1 to 4, so take out the one in which cells are seen"
        )
    return channel_axis


def _split_channels(shape: tuple[int, ...], long: list[int], stack: bool) -> tuple[list[int], int | None]:
    """The axes without that of the channels, and that one, by its length and place."""
    last = len(long) > 2 and shape[long[-1]] in CHANNELS
    first = len(long) == 3 and shape[long[0]] in CHANNELS
    if first and last:
        raise ArrayError(
            f"shape {_shape_text(shape)} could have its channels first or last: name their axis with channel_axis"
        )
    if last and len(long) == 4 and not stack:
        raise ArrayError(
            f"shape {_shape_text(shape)} is that of a stack of {shape[long[0]]} images in colours: segment them one "
            "by one"
        )
    if len(long) == 4 and not last:
        raise ArrayError(
            f"shape {_shape_text(shape)} has four axes, of which none is known to hold channels: name it with "
            "channel_axis, or take out the planes to be segmented"
        )
    if last:
        return long[:-1], long[-1]
    if first and not stack:
        return long[1:], long[0]
    return long, None


def as_array(image: ArrayLike) -> np.ndarray:
    """An array of bool, integers or floats in any shape; masked pixels become not-a-number.

    Raises:
        ArrayError: it cannot become one.
    """
    try:
        array = np.asarray(image)
    except MemoryError:
        raise
    except Exception as error:  # ragged lists, tensors on a GPU: every library has its own exception
        raise ArrayError(f"what was given as an image cannot become a NumPy array ({first_line(error)})") from None
    if array.dtype.kind not in "buif":
        hint = "; read files with read_image" if array.dtype.kind in "US" else ""
        raise ArrayError(f"pixels are real numbers or bool, but this array is of type {array.dtype}{hint}")
    if isinstance(image, np.ma.MaskedArray) and np.ma.is_masked(image):
        array = np.where(np.ma.getmaskarray(image), np.float32(np.nan), array.astype(np.float32))
    return array


def _grey(array: np.ndarray, axes: ImageAxes, order: tuple[int, ...]) -> np.ndarray:
    """The array with its axes in ``order`` and the channels turned to grey."""
    if axes.channels is not None:
        order = (*order, axes.channels)
    dropped = tuple(axis for axis in range(array.ndim) if axis not in order)
    kept = sorted(order)
    array = np.squeeze(array, dropped).transpose([kept.index(axis) for axis in order])
    if axes.channels is None:
        return plain_dtype(array)
    return grey_from_channels(array.reshape(-1, *array.shape[-2:])).reshape(array.shape[:-1])  # planes as more rows


def _any_finite(plane: np.ndarray) -> bool:
    return plane.dtype.kind != "f" or bool(np.isfinite(plane).any())


def _shape_text(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "that of a single number"
