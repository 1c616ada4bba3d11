"""Measure the background of an image: its level and its noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

BLOCK = 8  # pixels; small enough to find room between the cells of a crowded image
QUIET_SHARE = 0.1
TILE = 256  # pixels
CLEAR_CORRELATION = 0.05


@dataclass(frozen=True, eq=False)
class Background:
    """A smooth level and a noise, both measured on the image's quietest blocks.

    Attributes:
        levels: float32 ``(rows, columns)``, grey level of each block.
        block: side of a block in pixels.
        std: standard deviation of the noise in grey levels.
        grain: sigma in pixels of the Gaussian that makes white noise as coarse as the image's.
    """

    levels: np.ndarray
    block: int
    std: float
    grain: float

    @classmethod
    def of(cls, image: np.ndarray) -> Background:
        """Measure an image ``(H, W)``: blocks with the least variation hold no cells, or the fewest.

        The level between them is their normalised convolution with a wide Gaussian (Knutsson and Westin 1993).
        """
        block = min(BLOCK, *image.shape)
        rows, columns = image.shape[0] // block, image.shape[1] // block
        blocks = image[: rows * block, : columns * block].reshape(rows, block, columns, block)
        blocks = blocks.transpose(0, 2, 1, 3).astype(np.float32)
        means = blocks.mean(axis=(2, 3))
        rest = blocks - means[..., None, None]
        variances = (rest**2).mean(axis=(2, 3))
        quiet = variances <= np.quantile(variances, QUIET_SHARE)
        width = max(rows, columns) / 12
        weights = cv2.GaussianBlur(quiet.astype(np.float32), (0, 0), width) + np.float32(1e-3)
        typical = means[quiet].mean()
        levels = typical + cv2.GaussianBlur(np.where(quiet, means - typical, 0), (0, 0), width) / weights
        rest, variance = rest[quiet], float(variances[quiet].mean())
        grain = 0.0
        if variance > 0:
            correlation = float((rest[..., 1:] * rest[..., :-1]).mean()) / variance
            if correlation > CLEAR_CORRELATION:
                # White noise under a Gaussian of this sigma has that correlation between neighbours.
                grain = (-0.25 / np.log(min(correlation, 0.95))) ** 0.5
        return cls(levels.astype(np.float32), block, variance**0.5, float(grain))

    def level_at(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The level at pixel indices, float32 arrays of one shape ``(h, w)``; outside as at the border."""
        scale, shift = np.float32(1 / self.block), np.float32(0.5 / self.block - 0.5)
        places = columns * scale + shift, rows * scale + shift
        return cv2.remap(self.levels, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def noise(self, rng: np.random.Generator) -> np.ndarray:
        """A tile of noise, float32 ``(TILE, TILE)``, that may be repeated."""
        reach = int(np.ceil(4 * self.grain)) + 1
        noise = rng.standard_normal((TILE, TILE), dtype=np.float32)
        if self.grain > 0:
            noise = cv2.GaussianBlur(np.pad(noise, reach, mode="wrap"), (0, 0), self.grain)[reach:-reach, reach:-reach]
        return noise * np.float32(self.std / noise.std())
