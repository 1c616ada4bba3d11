"""Render optical thickness as a phase-contrast picture.

Phase contrast shows thickness against its surroundings: what is thicker than the mean around it turns dark and gets a
bright halo. To first order that is a difference of Gaussians of the thickness, the wide ones standing for the light
that the phase ring lets through. The instrument of the competition also sharpens the picture and flattens the
background, so that halos are narrow and little is left of uneven lighting.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Appearance:
    """What the images of one well have in common.

    Attributes:
        focus: standard deviation of the sharp Gaussian, in pixels.
        halo: standard deviation of the Gaussian that makes the narrow halo, in pixels; a wider one adds a faint glow.
        contrast: grey levels per unit of thickness.
        noise: standard deviation of the sensor's noise, in grey levels.
        shading: standard deviation of the uneven background, in grey levels.
        debris: amount of debris relative to its mean.
        neurites: number of neurites relative to its mean.
        crowding: number of cells relative to its mean.
    """

    focus: float
    halo: float
    contrast: float
    noise: float
    shading: float
    debris: float
    neurites: float
    crowding: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Appearance:
        """A random appearance."""
        return cls(
            focus=rng.uniform(0.42, 0.62),
            halo=rng.uniform(1.25, 1.6),
            contrast=rng.uniform(1.9, 2.6),
            noise=rng.uniform(1.0, 2.0),
            shading=rng.uniform(0.1, 0.7),
            debris=rng.gamma(4, 1 / 4),
            neurites=rng.gamma(6, 1 / 6),
            crowding=rng.gamma(9, 1 / 9),
        )


def band_noise(rng: np.random.Generator, shape: tuple[int, int], fine: float, coarse: float) -> np.ndarray:
    """Noise of unit variance without structure finer than ``fine`` or coarser than ``coarse`` pixels; float32."""
    white = rng.standard_normal(shape, dtype=np.float32)
    band = cv2.GaussianBlur(white, (0, 0), fine) - cv2.GaussianBlur(white, (0, 0), coarse)
    return band / band.std()


def form_image(thickness: np.ndarray, look: Appearance, rng: np.random.Generator, margin: int) -> np.ndarray:
    """The picture of a ``thickness`` field.

    Args:
        thickness: float32 ``(H + 2 * margin, W + 2 * margin)``; what lies in the margin only casts its halo.
        look: appearance of the well.
        rng: source of the noise.
        margin: in pixels.

    Returns:
        uint8 ``(H, W)``, grey level 128 where nothing is.
    """
    sharp = cv2.GaussianBlur(thickness, (0, 0), look.focus)
    soft = cv2.GaussianBlur(thickness, (0, 0), 2 * look.focus)
    # The focus changes smoothly over the field, as on a plate that lies not quite level.
    blend = _smooth_field(rng, thickness.shape)
    blend = np.clip(0.2 + 0.2 * blend, 0, 0.8)
    halo, glow = (cv2.GaussianBlur(thickness, (0, 0), s * look.halo) for s in (1, 3.5))
    surround = 0.7 * halo + 0.3 * glow
    picture = (surround - sharp - blend * (soft - sharp)) * look.contrast
    inner = (slice(margin, -margin), slice(margin, -margin)) if margin else (slice(None), slice(None))
    picture = picture[inner]
    picture += look.shading * _smooth_field(rng, picture.shape)
    grain = cv2.GaussianBlur(rng.standard_normal(picture.shape, dtype=np.float32), (0, 0), 0.55)
    picture += look.noise * grain / grain.std()
    return np.clip(np.round(128 + picture), 0, 255).astype(np.uint8)


def _smooth_field(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A slowly varying field with a gradient, zero mean and unit variance; float32 of ``shape``."""
    coarse = cv2.GaussianBlur(rng.standard_normal((6, 8), dtype=np.float32), (0, 0), 0.8)
    rows, columns = np.linspace(-1, 1, 6, dtype=np.float32), np.linspace(-1, 1, 8, dtype=np.float32)
    slope = rng.normal(0, 0.4, 2).astype(np.float32)
    coarse += slope[0] * rows[:, None] + slope[1] * columns
    coarse = (coarse - coarse.mean()) / coarse.std()
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
