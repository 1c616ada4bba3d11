"""Stored values as grey ones: three types of number, and one plane of several channels."""

from __future__ import annotations

import numpy as np

from cellseg_d2.images.errors import ImageError

# ITU-R BT.601, the weights that Pillow takes for 8-bit colours.
_LUMA = np.array([0.299, 0.587, 0.114])


def plain_dtype(image: np.ndarray) -> np.ndarray:
    """The smallest of uint8, uint16 and float32 that holds what was read.

    Raises:
        ImageError: it is of a type that is no real number.
    """
    if image.dtype.kind not in "buif":
        raise ImageError(f"pixels are real numbers or bool, but this image is of type {image.dtype}")
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return image
    if np.issubdtype(image.dtype, np.integer) and (image.size == 0 or (image.min() >= 0 and image.max() <= 65535)):
        return image.astype(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):  # doubles beyond float32 become infinite, and are no pixels then
        return image.astype(np.float32)


def grey_from_channels(image: np.ndarray) -> np.ndarray:
    """Grey of ``(H, W, 1…4)``: grey, maybe with alpha, or RGB with or without alpha; dtype as of :func:`plain_dtype`.

    Grey of integers is rounded, whatever type holds it.
    """
    whole_numbers = image.dtype.kind in "iu"
    image = plain_dtype(image)
    if image.shape[2] < 3:
        return np.ascontiguousarray(image[:, :, 0])
    grey = image[:, :, :3] @ _LUMA
    if whole_numbers or image.dtype != np.float32:
        grey = np.rint(grey)
    return grey.astype(image.dtype)


def grey_dtype(dtype: np.dtype) -> np.dtype:
    """The type of grey values for stored values of this type, whatever these are.

    Raises:
        ImageError: they are no real numbers.
    """
    if dtype.kind not in "buif":
        raise ImageError(f"pixels are real numbers or bool, but this image is of type {dtype}")
    if dtype.itemsize == 1 and dtype.kind in "bu":
        return np.dtype(np.uint8)
    return np.dtype(np.uint16 if dtype.kind == "u" and dtype.itemsize == 2 else np.float32)
