"""What cells are made of: from label images to optical thickness and to dye.

Thickness is in the units of :mod:`cellseg_d2.simulation.microscopes`: a thin spread cell is about 10 thick.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.simulation.noise import draw_spots, smooth_noise
from cellseg_d2.simulation.optics import band_noise
from cellseg_d2.simulation.partition import Bend


@dataclass(frozen=True)
class Build:
    """How the cells of one picture are built, on average; thicknesses may be negative, which looks bright.

    Attributes:
        diameter: of a typical cell in pixels.
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


class Anatomy:
    """Where edges and nuclei of the cells of a label image lie.

    Args:
        labels: int32 ``(H, W)``, 0 where no cell is.
        rng: source of randomness.
        share: radius of the nuclei over that of the cells, about.
    """

    def __init__(self, labels: np.ndarray, rng: np.random.Generator, share: float) -> None:
        count = int(labels.max()) + 1
        self.labels, self.count = labels, count
        cell = labels > 0
        differs = np.zeros(labels.shape, dtype=bool)
        contact = np.zeros(labels.shape, dtype=bool)
        for here, there in (
            ((slice(1, None), slice(None)), (slice(-1), slice(None))),
            ((slice(None), slice(1, None)), (slice(None), slice(-1))),
        ):
            unlike = labels[here] != labels[there]
            differs[here] |= unlike
            differs[there] |= unlike
            contact[here] |= unlike & cell[here] & cell[there]
        # Smoothed, as a distance from pixels is angular.
        self.depth = cv2.GaussianBlur(_distance(cell & ~differs), (0, 0), 0.8)
        self.to_contact = _distance(~contact) if contact.any() else np.full(labels.shape, 1e3, np.float32)
        self.to_free = (
            cv2.GaussianBlur(_distance(cell), (0, 0), 0.6) if not cell.all() else np.full(labels.shape, 1e3, np.float32)
        )
        self.pixels = np.flatnonzero(cell)
        self.label = labels.ravel()[self.pixels]
        self.y, self.x = (axis.astype(np.float32) for axis in np.divmod(self.pixels, labels.shape[1]))
        self._place_nuclei(rng, share)

    def _place_nuclei(self, rng: np.random.Generator, share: float) -> None:
        label, count = self.label, self.count
        self.area = np.bincount(label, minlength=count).astype(float)
        weight = self.depth.ravel()[self.pixels] ** 2 + 1e-3
        total = np.maximum(np.bincount(label, weight, count), 1e-6)
        cx, cy = (np.bincount(label, weight * axis, count) / total for axis in (self.x, self.y))
        dx, dy = self.x - cx[label], self.y - cy[label]
        xx, xy, yy = (np.bincount(label, weight * p, count) / total for p in (dx * dx, dx * dy, dy * dy))
        # Axes of the cell: nuclei lie along them, less elongated.
        turn = 0.5 * np.arctan2(2 * xy, xx - yy)
        mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        ratio = np.sqrt(np.sqrt((mean + spread + 0.3) / np.maximum(mean - spread, 0).clip(0.3)))
        ratio = np.clip(ratio * np.exp(rng.normal(0, 0.08, count)), 1, 2.4)
        deepest = np.zeros(count)
        np.maximum.at(deepest, label, self.depth.ravel()[self.pixels])
        radius = np.minimum(share * np.sqrt(self.area / np.pi), 0.85 * deepest) * np.exp(rng.normal(0, 0.1, count))
        radius = np.maximum(radius, 1.0)
        shift = rng.normal(0, 0.25, (2, count)) * radius
        self.center = np.stack([cy + shift[0], cx + shift[1]], axis=1)
        self.axes = np.stack([radius * np.sqrt(ratio), radius / np.sqrt(ratio)], axis=1)
        self.turn = turn
        dx, dy = self.x - self.center[label, 1].astype(np.float32), self.y - self.center[label, 0].astype(np.float32)
        cos, sin = np.cos(turn).astype(np.float32), np.sin(turn).astype(np.float32)
        long, wide = (1 / self.axes.T).astype(np.float32)
        # Distance from the nucleus's middle, 1 on its outline.
        self.nuclear = np.hypot(
            (cos[label] * dx + sin[label] * dy) * long[label], (cos[label] * dy - sin[label] * dx) * wide[label]
        )

    def places_in_nuclei(self, rng: np.random.Generator, which: np.ndarray, reach: float) -> np.ndarray:
        """A random place ``(n, 2)`` (``y, x``) in the nucleus of each of the cells ``which`` ``(n,)``."""
        angle, radius = rng.uniform(0, 2 * np.pi, len(which)), reach * np.sqrt(rng.random(len(which)))
        u, v = (radius * np.stack([np.cos(angle), np.sin(angle)])) * self.axes[which].T
        cos, sin = np.cos(self.turn[which]), np.sin(self.turn[which])
        return self.center[which] + np.stack([sin * u + cos * v, cos * u - sin * v], axis=1)


def _distance(inside: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def add_thickness(
    thickness: np.ndarray, anatomy: Anatomy, build: Build, rng: np.random.Generator, bend: Bend | None = None
) -> None:
    """Add the cells to the optical ``thickness``, float32 ``(H, W)``, changed in place.

    Args:
        thickness: the field.
        anatomy: of the cells.
        build: of the cells, on average; each deviates.
        rng: source of randomness.
        bend: the map along which fibres run.
    """
    if len(anatomy.pixels) == 0:
        return
    label, shape = anatomy.label, thickness.shape
    scale = build.detail

    def each(mean: float, spread: float) -> np.ndarray:
        return (mean * np.exp(rng.normal(0, spread, anatomy.count))).astype(np.float32)[label]

    depth, free = (field.ravel()[anatomy.pixels] for field in (anatomy.depth, anatomy.to_free))
    free = np.maximum(free - build.inset, 0)
    vigour = each(1, 0.25)
    body = vigour * build.height * (1 - np.exp(-free / build.slope))
    body += build.dome * vigour * np.exp(-((anatomy.nuclear / 2.2) ** 2)) * np.minimum(depth / (3 * build.slope), 1)
    inside = _sigmoid((1 - anatomy.nuclear) * 9)
    body += each(build.nucleus, 0.4) * inside
    # The outline of a nucleus is about as wide as other fine structures, whatever its size.
    width = 1.3 * scale / np.maximum(anatomy.axes.min(axis=1), 1).astype(np.float32)[label]
    body += each(build.envelope, 0.4) * np.exp(-(((anatomy.nuclear - 1) / np.maximum(width, 0.08)) ** 2))
    uneven = smooth_noise(rng, shape, 10 * scale).ravel()[anatomy.pixels]
    edge = np.exp(-(((free - 1.2 * scale) / (1.1 * scale)) ** 2)) * (free > 0)
    body += vigour * build.rim * np.clip(0.9 + 0.45 * uneven, 0, 2.5) * edge
    if build.ring:
        band = np.clip(0.13 * build.diameter, 1.2, 5)
        body += each(build.ring, 0.3) * np.exp(-(((depth - 1.1 * band) / (0.7 * band)) ** 2))
    field = np.zeros(shape, dtype=np.float32)
    field.ravel()[anatomy.pixels] = body
    if build.ring:  # rounded cells have no ridges inside
        field = cv2.GaussianBlur(field, (0, 0), 0.05 * build.diameter)
    texture = _texture(rng, shape, scale, build.fibres, bend).ravel()[anatomy.pixels]
    around = np.exp(-((np.maximum(anatomy.nuclear - 1.1, 0) / 0.9) ** 2))
    around = (build.evenness + (1 - build.evenness) * around) * (1 - 0.65 * inside) * np.minimum(free / 2, 1)
    field.ravel()[anatomy.pixels] += each(build.texture, 0.35) * texture * around
    if build.seam:
        patchy = rng.uniform(0.2, 0.9)
        strength = np.clip(1 - patchy + patchy * smooth_noise(rng, shape, 0.8 * build.diameter), 0, 2.5)
        field += build.seam * strength * np.exp(-((anatomy.to_contact / (rng.uniform(1.1, 1.7) * scale)) ** 2))
    _add_granules(field, anatomy, build, rng, scale)
    thickness += field


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -20, 20)))


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


def _add_granules(field: np.ndarray, anatomy: Anatomy, build: Build, rng: np.random.Generator, scale: float) -> None:
    """Nucleoli in the nuclei; granules and a few bright vacuoles around them."""
    cells = np.flatnonzero(anatomy.area > 0)
    which = np.repeat(cells, rng.choice([0, 1, 2, 3, 4], len(cells), p=[0.1, 0.35, 0.3, 0.15, 0.1]))
    small = np.clip(anatomy.axes[which, 1] / (8 * scale), 0.2, 1)
    peaks = build.nucleoli * small * rng.gamma(5, 1 / 5, len(which))
    draw_spots(field, anatomy.places_in_nuclei(rng, which, 0.6), peaks, 1.3 * scale)
    rate = build.granularity / 1000 * rng.gamma(1.6, 1 / 1.6, anatomy.count)[anatomy.label]
    near = np.exp(-(((anatomy.nuclear - 1.35) / 0.5) ** 2))
    rate = rate * (0.3 + 2.2 * near) * (anatomy.nuclear > 1.05) * (anatomy.to_free.ravel()[anatomy.pixels] > 2.5)
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
    label, shape = anatomy.label, dye.shape
    scale = build.detail
    level = rng.gamma(6, 1 / 6, anatomy.count).astype(np.float32)[label]
    depth = anatomy.depth.ravel()[anatomy.pixels]
    texture = _texture(rng, shape, scale, 0, None).ravel()[anatomy.pixels]
    inside = _sigmoid((1 - anatomy.nuclear) * 9)
    thick = (0.35 + 0.65 * np.exp(-((anatomy.nuclear / 2.6) ** 2))) * (1 - np.exp(-(depth + 0.4) / build.slope))
    amount = stain.cytoplasm * thick * np.clip(1 + 0.25 * texture, 0.2, 3) * (1 - inside)
    amount += stain.nucleus * inside * np.clip(1 + 0.12 * texture, 0.2, 3)
    amount += stain.membrane * np.exp(-((depth / (1.3 * scale)) ** 2)) * np.clip(0.8 + 0.3 * texture, 0.1, 3)
    dye.ravel()[anatomy.pixels] += level * amount
