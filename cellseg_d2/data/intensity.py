"""Intensities of any camera as the 0…255 that the network is normalised for."""

from __future__ import annotations

import numpy as np

from cellseg_d2.errors import CellSegError

MODES = ("auto", "percentile")


def to_uint8(image: np.ndarray, mode: str = "auto", percentiles: tuple[float, float] = (0.1, 99.9)) -> np.ndarray:
    """Grey image of any type as 8-bit, the same way in training and in prediction.

    Args:
        image: ``(H, W)``, any integer or float type. Not-a-number pixels take the darkest value.
        mode: ``"auto"`` leaves 8-bit images as they are and stretches all others; ``"percentile"`` stretches all.
        percentiles: of the image's own values, mapped to 0 and 255; what is beyond is cut off.

    Returns:
        uint8 ``(H, W)``. A constant image becomes all zero.
    """
    if mode not in MODES:
        raise CellSegError(f"INPUT.INTENSITY is {mode!r}; it can be {' or '.join(MODES)}")
    if mode == "auto" and image.dtype == np.uint8:
        return image
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise CellSegError("the image has no finite pixel")
    low, high = np.percentile(values[finite], percentiles)
    if high <= low:
        return np.zeros(image.shape, dtype=np.uint8)
    scaled = np.clip((values - low) * (255 / (high - low)), 0, 255)
    return np.where(finite, np.rint(scaled), 0).astype(np.uint8)
