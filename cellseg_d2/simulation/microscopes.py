"""Render thickness and dye as microscopes show them: phase contrast, relief contrast, brightfield, fluorescence.

Grey levels follow from thickness by first-order models. Phase contrast compares the thickness with its surroundings
(halo); brightfield out of focus shows its curvature, dark or bright by the side of focus (transport of intensity);
differential interference contrast (DIC) shows its slope along one direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from cellseg_d2.simulation.noise import smooth_noise

MODALITIES = ("phase", "brightfield", "relief", "fluorescence")


@dataclass(frozen=True)
class Microscope:
    """What the images of one well have in common.

    Attributes:
        modality: one of :data:`MODALITIES`.
        base: grey level of the background.
        gain: grey levels per unit of thickness, or of a bright cell's dye.
        inverted: thick is bright rather than dark: the other phase ring, or the other side of focus in brightfield.
        focus: standard deviation of the blur, in pixels.
        halo: width of the halo, or of the fringe in brightfield, in pixels.
        halo_share: strength of the halo; 0 is none, with 1 wide plateaus take the background's grey.
        glow: share of the halo that is 3.5 times as wide.
        direction: direction of the relief's light, in radians.
        noise: standard deviation of the sensor's noise, in grey levels.
        grain: width of the noise in pixels; 0 is uncorrelated.
        shading: uneven light, standard deviation over mean.
        vignette: loss of light in the corners, 0 to 1.
        aperture: radius of the field of view over half the image's diagonal; corners beyond are black.
        dirt: amount of dust and debris relative to what is usual.
        scratches: mean number.
        quality: quality of JPEG compression, 0 to 100; 100 is none.
    """

    modality: str = "phase"
    base: float = 128
    gain: float = 2.2
    inverted: bool = False
    focus: float = 0.5
    halo: float = 1.5
    halo_share: float = 1.0
    glow: float = 0.3
    direction: float = 0.0
    noise: float = 1.5
    grain: float = 0.55
    shading: float = 0.0
    vignette: float = 0.0
    aperture: float = 2.0
    dirt: float = 1.0
    scratches: float = 0.0
    quality: int = 100

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Microscope:
        """A random microscope: about three of five show phase contrast."""
        modality = rng.choice(MODALITIES, p=[0.62, 0.14, 0.12, 0.12])
        dirt = rng.gamma(1.5, 1 / 1.5)
        if modality == "phase" and rng.random() < 0.5:
            # Flattened and sharpened by the instrument: narrow halos on an even grey.
            return cls(
                gain=rng.uniform(1.3, 3.6),
                focus=rng.uniform(0.38, 0.6),
                halo=rng.uniform(1.0, 1.9),
                glow=rng.uniform(0.0, 0.25),
                noise=rng.uniform(0.8, 2.0),
                shading=rng.uniform(0, 0.01),
                dirt=dirt,
                quality=int(rng.choice([100, 100, 90])),
            )
        common = cls(
            modality=str(modality),
            focus=rng.uniform(0.5, 1.3),
            inverted=bool(rng.random() < 0.2),
            direction=rng.uniform(0, 2 * np.pi),
            noise=float(np.exp(rng.uniform(np.log(0.25), np.log(2)))),
            grain=rng.choice([0.0, 0.5, 0.9]),
            shading=rng.choice([0.0, 1.0]) * rng.uniform(0.01, 0.15),
            vignette=rng.choice([0.0, 1.0], p=[0.7, 0.3]) * rng.uniform(0.1, 0.6),
            aperture=rng.uniform(0.75, 1.0) if rng.random() < 0.06 else 2.0,
            dirt=dirt,
            scratches=rng.choice([0.0, 1.5], p=[0.85, 0.15]),
            quality=int(rng.choice([100, 85, 60, 40], p=[0.6, 0.2, 0.12, 0.08])),
        )
        if modality == "fluorescence":
            return replace(
                common,
                base=rng.uniform(2, 40),
                gain=rng.uniform(80, 240),
                noise=3 * common.noise,
                inverted=False,
                vignette=0.0,
            )
        base = rng.uniform(70, 190)
        if modality == "phase":
            gain = float(np.exp(rng.uniform(np.log(1.0), np.log(4.0))))
            return replace(
                common,
                base=base,
                gain=gain,
                noise=gain * common.noise,
                halo=float(np.exp(rng.uniform(np.log(1.5), np.log(20)))),
                halo_share=rng.uniform(0.0, 1.0) ** 0.6,
                glow=rng.uniform(0.1, 0.5),
            )
        if modality == "relief":
            return replace(common, base=base, gain=rng.uniform(1.2, 4.5), noise=2 * common.noise, inverted=False)
        return replace(
            common,
            base=base,
            gain=rng.uniform(1.5, 4),
            noise=2 * common.noise,
            focus=rng.uniform(0.7, 1.6),
            halo=rng.uniform(1.5, 5),
            inverted=bool(rng.random() < 0.5),
        )


def form_picture(
    thickness: np.ndarray,
    dye: np.ndarray,
    scope: Microscope,
    rng: np.random.Generator,
    margin: int,
    cells: np.ndarray | None = None,
) -> np.ndarray:
    """The picture of the fields ``thickness`` and ``dye``.

    Args:
        thickness, dye: float32 ``(H + 2 * margin, W + 2 * margin)``; what lies in the margin only casts its halo.
        scope: the microscope.
        rng: source of noise, dust on the optics and unevenness.
        margin: in pixels.
        cells: bool, where cells are; the gain is turned up, or the noise down, until they show.

    Returns:
        uint8 ``(H, W)``.
    """
    signal = {"phase": _phase, "brightfield": _brightfield, "relief": _relief}
    if scope.modality == "fluorescence":
        sharp = cv2.GaussianBlur(dye, (0, 0), scope.focus)
        field = sharp + 0.12 * _wide_blur(dye, 12)
    else:
        field = signal[scope.modality](thickness, scope)
    gain, strength = scope.gain, scope.noise
    if cells is not None and cells.any():
        contrast = float(field[cells].std())
        least = rng.uniform(5, 9) if scope.modality != "fluorescence" else rng.uniform(8, 35)
        gain = max(gain, min(least / max(contrast, 1e-6), 6 * gain))
        if rng.random() < 0.85:  # and down where most would be black or white
            room = 0.9 * (255 - scope.base if scope.modality == "fluorescence" else min(scope.base, 255 - scope.base))
            gain = min(gain, room / max(float(np.quantile(np.abs(field[cells][::7]), 0.97)), 1e-6))
        strength = min(strength, gain * contrast / 2)
    field = field[margin:-margin, margin:-margin] if margin else field
    dark = scope.modality in ("phase", "brightfield") and not scope.inverted
    picture = scope.base + (-gain if dark else gain) * field
    picture *= _light(rng, picture.shape, scope)
    _scratch(picture, rng, scope)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    if scope.grain:
        noise = cv2.GaussianBlur(noise, (0, 0), scope.grain)
        noise /= noise.std()
    if scope.modality == "fluorescence":  # shot noise
        noise *= np.sqrt(np.maximum(picture, 1) / 60)
    picture += strength * noise
    _close_aperture(picture, scope)
    image = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    if scope.quality < 100:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, scope.quality])
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    return image


def _wide_blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian blur; wide ones on a smaller copy."""
    step = int(sigma // 4)
    if step < 2:
        return cv2.GaussianBlur(field, (0, 0), sigma)
    height, width = field.shape
    small = cv2.resize(field, (max(width // step, 1), max(height // step, 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / step), (width, height), interpolation=cv2.INTER_LINEAR)


def _phase(thickness: np.ndarray, scope: Microscope) -> np.ndarray:
    sharp = cv2.GaussianBlur(thickness, (0, 0), scope.focus)
    surround = (1 - scope.glow) * _wide_blur(thickness, scope.halo)
    if scope.glow:
        surround += scope.glow * _wide_blur(thickness, 3.5 * scope.halo)
    return sharp - scope.halo_share * surround


def _brightfield(thickness: np.ndarray, scope: Microscope) -> np.ndarray:
    near, far = (cv2.GaussianBlur(thickness, (0, 0), s) for s in (scope.focus, scope.focus + 0.5 * scope.halo))
    fringe = _wide_blur(thickness, scope.focus + scope.halo)
    # What spreads out of focus gathers beside: a second, weaker fringe.
    return (near - far) - 0.5 * (far - fringe) - 0.04 * near


def _relief(thickness: np.ndarray, scope: Microscope) -> np.ndarray:
    sharp = cv2.GaussianBlur(thickness, (0, 0), scope.focus)
    slope = np.cos(scope.direction) * cv2.Sobel(sharp, cv2.CV_32F, 1, 0) + np.sin(scope.direction) * cv2.Sobel(
        sharp, cv2.CV_32F, 0, 1
    )
    return 0.25 * slope


def _light(rng: np.random.Generator, shape: tuple[int, int], scope: Microscope) -> np.ndarray:
    height, width = shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    tilt = rng.normal(0, 1, 2).astype(np.float32)
    uneven = 0.6 * (tilt[0] * y + tilt[1] * x) + 0.5 * smooth_noise(rng, shape, 0.5 * width)
    light = 1 + np.float32(scope.shading) * uneven
    if scope.vignette:
        light *= 1 - np.float32(scope.vignette) * (y**2 + x**2) / 2
    return np.maximum(light, 0.1)


def _scratch(picture: np.ndarray, rng: np.random.Generator, scope: Microscope) -> None:
    height, width = picture.shape
    for _ in range(rng.poisson(scope.scratches)):
        start, heading = rng.random(2) * (width, height), rng.uniform(0, 2 * np.pi)
        end = start + rng.uniform(0.1, 1) * width * np.array([np.cos(heading), np.sin(heading)])
        line = np.zeros(picture.shape, dtype=np.uint8)
        points = [tuple(int(8 * v) for v in point) for point in (start, end)]
        cv2.line(line, points[0], points[1], 255, int(rng.integers(1, 3)), cv2.LINE_AA, 3)
        picture += rng.normal(0, 25) / 255 * cv2.GaussianBlur(line.astype(np.float32), (0, 0), 0.8)


def _off_center(shape: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel from the middle over half the diagonal, float ``shape``."""
    height, width = shape
    y, x = np.ogrid[:height, :width]
    return np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) / (0.5 * np.hypot(height, width))


def _close_aperture(picture: np.ndarray, scope: Microscope) -> None:
    if scope.aperture < 1:
        picture *= 1 / (1 + np.exp(np.clip((_off_center(picture.shape) - scope.aperture) * 150, -30, 30)))


def field_of_view(shape: tuple[int, int], scope: Microscope) -> np.ndarray:
    """Which pixels of an image of ``shape`` the aperture leaves open, bool."""
    return _off_center(shape) <= scope.aperture
