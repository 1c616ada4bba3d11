"""Intensities of any camera as the 0…255 that the network is normalised for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellseg_d2.errors import CellSegError

MODES = ("auto", "percentile")


def to_uint8(
    image: np.ndarray,
    mode: str = "auto",
    percentiles: tuple[float, float] = (0.1, 99.9),
    limits: Sequence[float] | None = None,
) -> np.ndarray:
    """Grey image of any type as 8-bit, the same way in training and in prediction.

    Args:
        image: ``(H, W)``, any integer or float type. Not-a-number pixels take the darkest value.
        mode: ``"auto"`` leaves 8-bit images as they are and stretches all others; ``"percentile"`` stretches all.
        percentiles: of the image's own values, mapped to 0 and 255; what is beyond is cut off.
        limits: the values mapped to 0 and 255 instead of the image's own percentiles, so that the parts of a large
            image are stretched alike; see :func:`cellseg_d2.images.lazy.sample_percentiles`.

    Returns:
        uint8 ``(H, W)``. A constant image becomes all zero.

    Raises:
        CellSegError: an unknown mode, or no pixel is finite where the image's own percentiles are asked for.
    """
    if mode not in MODES:
        raise CellSegError(f"INPUT.INTENSITY is {mode!r}; it can be {' or '.join(MODES)}")
    if mode == "auto" and image.dtype == np.uint8:
        return image
    low, high = intensity_range(image, percentiles) if limits is None else np.asarray(limits, dtype=np.float64)
    if high <= low:
        return np.zeros(image.shape, dtype=np.uint8)
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    scaled = np.clip((values - low) * (255 / (high - low)), 0, 255)
    return np.where(finite, np.rint(scaled), 0).astype(np.uint8)


def intensity_range(values: np.ndarray, percentiles: Sequence[float]) -> np.ndarray:
    """Percentiles of the finite ones among ``values``, of any shape and numeric type: float64 ``(P,)``.

    Raises:
        CellSegError: none is finite.
    """
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise CellSegError("the image has no finite pixel")
    return np.percentile(values[finite], percentiles)
