"""What Pillow reads: PNG, JPEG and BMP, and the compressions of TIFF that tifffile does not know by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.grey import plain_dtype

_Read = TypeVar("_Read")

# Modes that hold one grey plane of more than 8 bits.
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def with_pillow(path: Path, use: Callable[[Image.Image], _Read], frame: int = 0) -> _Read:
    """What ``use`` makes of an image in a file; an animation in a PNG shows its first frame."""
    with Image.open(path) as image:
        if frame:
            image.seek(frame)
        return use(image)


def grey_of_pillow(image: Image.Image) -> np.ndarray:
    """Grey values ``(H, W)``, of a dtype as of :func:`plain_dtype`."""
    if image.mode in _DEEP_MODES:
        return plain_dtype(np.array(image))
    if image.mode == "P":
        image = image.convert("RGB")  # straight from palette to grey, Pillow would keep a palette's transparency
    return np.array(image.convert("L"))


def colours_of_pillow(image: Image.Image) -> np.ndarray:
    """Values ``(H, W, 3)`` of red, green and blue, or ``(H, W)`` where there are no colours."""
    if image.mode in (*_DEEP_MODES, "L", "1", "LA"):
        return grey_of_pillow(image)
    return np.array(image.convert("RGB"))


def labels_of_pillow(image: Image.Image) -> np.ndarray:
    """Values ``(H, W)`` as stored; of a palette its indices.

    Raises:
        ImageError: it has colours.
    """
    if image.mode not in (*_DEEP_MODES, "L", "P", "1"):
        raise coloured_labels(getattr(image, "filename", "the image"))
    return np.array(image)


def coloured_labels(path: str | Path) -> ImageError:
    """The error of a label image that has colours."""
    return ImageError(f"{path} has colours; a label image has one channel, 0 for background and a number for each cell")
