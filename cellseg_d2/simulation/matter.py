"""Convert label images of cells to optical thickness and to dye.

Thickness is in the units of :mod:`cellseg_d2.simulation.microscopes`: a thin spread cell is about 10 thick.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.simulation.anatomy import Anatomy
from cellseg_d2.simulation.noise import draw_spots, smooth_noise
from cellseg_d2.simulation.optics import band_noise
from cellseg_d2.simulation.partition import Bend


@dataclass(frozen=True)
class Build:
    """How the cells of one picture are built, on average; thicknesses may be negative, which looks bright.

    Attributes:
        diameter: diameter of a typical cell in pixels.
        detail: size of the finest structures (grains, seams, edges) in pixels.
        height: thickness of the flat part.
        inset: pixels between a free edge of the mask, which annotators draw around the halo, and the cell's.
        slope: pixels over which it rises from the edge.
        dome: additional thickness around the nucleus.
        nucleus: additional thickness of the nucleus.
        envelope: additional thickness of the nucleus's outline.
        nucleoli: thickness of the dots in the nucleus.
        granules: thickness of the grains in the cytoplasm.
        granularity: grains per 1,000 pixels.
        texture: standard deviation of the fine texture of the cytoplasm.
        evenness: strength of this texture far from the nucleus, relative to that around it.
        fibres: how far this texture is drawn out along the cells, from 0 to 1.
        seam: thickness of the lines where cells touch.
        rim: additional thickness of the edges where cells touch nothing.
        ring: thickness of the band inside the whole edge, as of rounded cells.
    """

    diameter: float
    detail: float = 0.7
    height: float = 10
    inset: float = 1.2
    slope: float = 1.5
    dome: float = 5
    nucleus: float = 2
    envelope: float = 3
    nucleoli: float = 15
    granules: float = 12
    granularity: float = 10
    texture: float = 3
    evenness: float = 0.3
    fibres: float = 0
    seam: float = 0
    rim: float = 6
    ring: float = 0


@dataclass(frozen=True)
class Stain:
    """How a dye spreads in the cells: amounts in the cytoplasm, the nucleus and the membrane, 0 to 1."""

    cytoplasm: float
    nucleus: float
    membrane: float


def add_thickness(
    thickness: np.ndarray, anatomy: Anatomy, build: Build, rng: np.random.Generator, bend: Bend | None = None
) -> None:
    """Add the cells to the optical ``thickness``, float32 ``(H, W)``, changed in place.

    Args:
        thickness: the field.
        anatomy: anatomy of the cells.
        build: build of the cells, on average; each deviates.
        rng: source of randomness.
        bend: the map along which fibres run.
    """
    if len(anatomy.pixels) == 0:
        return
    shape = thickness.shape
    field = np.zeros(shape, dtype=np.float32)
    free = np.maximum(anatomy.at_cells(anatomy.to_free) - build.inset, 0)
    field.ravel()[anatomy.pixels] = _body(anatomy, build, rng, shape, free)
    if build.ring:  # rounded cells have no ridges inside
        field = cv2.GaussianBlur(field, (0, 0), 0.05 * build.diameter)
    texture = anatomy.at_cells(_texture(rng, shape, build.detail, build.fibres, bend))
    around = np.exp(-((np.maximum(anatomy.nuclear - 1.1, 0) / 0.9) ** 2))
    around = (build.evenness + (1 - build.evenness) * around) * (1 - 0.65 * anatomy.nucleus) * np.minimum(free / 2, 1)
    field.ravel()[anatomy.pixels] += anatomy.each(rng, build.texture, 0.35) * texture * around
    if build.seam:
        patchy, width = rng.uniform(0.2, 0.9), rng.uniform(1.1, 1.7) * build.detail
        strength = np.clip(1 - patchy + patchy * smooth_noise(rng, shape, 0.8 * build.diameter), 0, 2.5)
        field += build.seam * strength * np.exp(-((anatomy.to_contact / width) ** 2))
    _add_grains(field, anatomy, build, rng)
    thickness += field


def _body(
    anatomy: Anatomy, build: Build, rng: np.random.Generator, shape: tuple[int, int], free: np.ndarray
) -> np.ndarray:
    """Thickness of plateaus, domes, nuclei, rims and rings at the cells' pixels ``(n,)``.

    ``free`` is the distance of these pixels to where the cells begin, at edges where they touch nothing.
    """
    depth, scale = anatomy.at_cells(anatomy.depth), build.detail
    vigour = anatomy.each(rng, 1, 0.25)
    body = vigour * build.height * (1 - np.exp(-free / build.slope))
    body += build.dome * vigour * np.exp(-((anatomy.nuclear / 2.2) ** 2)) * np.minimum(depth / (3 * build.slope), 1)
    body += anatomy.each(rng, build.nucleus, 0.4) * anatomy.nucleus
    # The outline of a nucleus is about as wide as other fine structures, whatever its size.
    width = 1.3 * scale / np.maximum(anatomy.axes.min(axis=1), 1).astype(np.float32)[anatomy.label]
    outline = np.exp(-(((anatomy.nuclear - 1) / np.maximum(width, 0.08)) ** 2))
    body += anatomy.each(rng, build.envelope, 0.4) * outline
    uneven = anatomy.at_cells(smooth_noise(rng, shape, 10 * scale))
    edge = np.exp(-(((free - 1.2 * scale) / (1.1 * scale)) ** 2)) * (free > 0)
    body += vigour * build.rim * np.clip(0.9 + 0.5 * uneven, 0, 2.5) * edge
    if build.ring:
        band = np.clip(0.13 * build.diameter, 1.2, 5)
        body += anatomy.each(rng, build.ring, 0.3) * np.exp(-(((depth - 1.1 * band) / (0.7 * band)) ** 2))
    return body


def _texture(
    rng: np.random.Generator, shape: tuple[int, int], scale: float, fibres: float, bend: Bend | None
) -> np.ndarray:
    """Grains of unit variance, dark ones rather than bright ones, drawn out along the cells where asked for."""
    grain = 0.8 * band_noise(rng, shape, 0.8 * scale, 1.7 * scale)
    grain += 0.5 * band_noise(rng, shape, 1.6 * scale, 5 * scale)
    grain += 0.3 * (grain**2 - 1)
    if fibres and bend is not None:
        white = rng.standard_normal(bend.shape, dtype=np.float32)
        along = bend.lay(cv2.GaussianBlur(white, (0, 0), 7 * scale, sigmaY=1.1 * scale))
        grain = (1 - fibres) * grain + fibres * along / along.std()
    return grain


def _add_grains(field: np.ndarray, anatomy: Anatomy, build: Build, rng: np.random.Generator) -> None:
    """Nucleoli in the nuclei; granules and a few bright vacuoles around them."""
    scale = build.detail
    cells = np.flatnonzero(anatomy.area > 0)
    which = np.repeat(cells, rng.choice([0, 1, 2, 3, 4], len(cells), p=[0.1, 0.35, 0.3, 0.15, 0.1]))
    small = np.clip(anatomy.axes[which, 1] / (8 * scale), 0.2, 1)
    peaks = build.nucleoli * small * rng.gamma(5, 1 / 5, len(which))
    draw_spots(field, anatomy.places_in_nuclei(rng, which, 0.6), peaks, 1.3 * scale)
    rate = build.granularity / 1000 * rng.gamma(1.6, 1 / 1.6, anatomy.count)[anatomy.label]
    near = np.exp(-(((anatomy.nuclear - 1.35) / 0.5) ** 2))
    rate = rate * (0.3 + 2.2 * near) * (anatomy.nuclear > 1.05) * (anatomy.at_cells(anatomy.to_free) > 2.5)
    chosen = np.flatnonzero(rng.random(len(rate)) < rate)
    places = np.stack([anatomy.y[chosen], anatomy.x[chosen]], axis=1) + rng.uniform(-0.5, 0.5, (len(chosen), 2))
    sizes = rng.integers(0, 3, len(chosen))
    peaks = build.granules * rng.gamma(2, 0.5, len(chosen))
    for k, radius in enumerate((0.75, 1.0, 1.5)):
        draw_spots(field, places[sizes == k], peaks[sizes == k], radius * scale)
    bright = rng.random(len(chosen)) < 0.06
    draw_spots(field, places[bright], -2 * peaks[bright], 1.6 * scale, rim=0.8)


def add_dye(dye: np.ndarray, anatomy: Anatomy, build: Build, stain: Stain, rng: np.random.Generator) -> None:
    """Add the cells' fluorescence to ``dye``, float32 ``(H, W)``, changed in place; a bright cell gives about 1."""
    if len(anatomy.pixels) == 0:
        return
    depth = anatomy.at_cells(anatomy.depth)
    level = rng.gamma(6, 1 / 6, anatomy.count).astype(np.float32)[anatomy.label]
    texture = anatomy.at_cells(_texture(rng, dye.shape, build.detail, 0, None))
    thick = (0.35 + 0.65 * np.exp(-((anatomy.nuclear / 2.6) ** 2))) * (1 - np.exp(-(depth + 0.4) / build.slope))
    amount = stain.cytoplasm * thick * np.clip(1 + 0.25 * texture, 0.2, 3) * (1 - anatomy.nucleus)
    amount += stain.nucleus * anatomy.nucleus * np.clip(1 + 0.12 * texture, 0.2, 3)
    membrane = np.exp(-((depth / (1.3 * build.detail)) ** 2))
    amount += stain.membrane * membrane * np.clip(0.8 + 0.3 * texture, 0.1, 3)
    dye.ravel()[anatomy.pixels] += level * amount
