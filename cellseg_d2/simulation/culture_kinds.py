"""Lay out cultures of each kind, and choose size and build of their cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cellseg_d2.simulation import outlines
from cellseg_d2.simulation.layers import Layer, lift, stack
from cellseg_d2.simulation.matter import Build
from cellseg_d2.simulation.partition import partition

CULTURE_TYPES = ("epithelium", "colony", "fibroblast", "spread", "stellate", "round")
# Smallest and largest mean diameter of the cells in pixels; stellate cells span it.
DIAMETERS = {
    "epithelium": (16, 100),
    "colony": (15, 55),
    "fibroblast": (16, 70),
    "spread": (26, 110),
    "stellate": (40, 150),
    "round": (10, 45),
}


def _draw_build(rng: np.random.Generator, diameter: float, kind: str) -> Build:
    """A random build for cells of one kind."""
    detail = float(np.exp(rng.uniform(np.log(0.48), np.log(1.0))) * np.clip(diameter / 28, 0.9, 4) ** 0.3)
    flat = Build(
        diameter,
        detail=detail,
        height=rng.uniform(4, 18),
        slope=detail * rng.uniform(1.0, 4.0),
        dome=rng.uniform(0, 18),
        nucleus=rng.normal(0, 4),
        envelope=rng.uniform(-5, 8),
        nucleoli=rng.uniform(4, 28),
        granules=rng.uniform(2, 12),
        granularity=float(np.exp(rng.uniform(np.log(3), np.log(60)))) / detail**2,
        texture=rng.uniform(1, 9),
        evenness=rng.choice([rng.uniform(0.1, 0.4), rng.uniform(0.4, 1.0)], p=[0.8, 0.2]),
        rim=rng.uniform(1, 18),
        # Now dark, now bright, often nearly invisible.
        seam=float(rng.choice([-1, 1], p=[0.7, 0.3]) * np.exp(rng.uniform(np.log(4), np.log(30)))),
    )
    if kind == "colony":
        return replace(flat, height=rng.uniform(10, 35), rim=rng.uniform(4, 24))
    if kind == "fibroblast":
        return replace(flat, fibres=rng.uniform(0, 0.8), dome=rng.uniform(6, 22))
    if kind == "stellate":
        return replace(
            flat,
            height=rng.uniform(8, 48),
            dome=rng.uniform(0, 40),
            inset=rng.uniform(0.4, 1.2),
            slope=flat.detail * rng.uniform(0.8, 2),
            granularity=flat.granularity / 2,
        )
    if kind == "round":
        ring = rng.choice([-1, 1, 0.2], p=[0.6, 0.15, 0.25]) * rng.uniform(15, 60)
        return replace(
            flat,
            height=rng.uniform(10, 60) * rng.choice([1, -0.6], p=[0.8, 0.2]),
            slope=max(rng.uniform(0.06, 0.25) * diameter, 1.2),
            inset=rng.uniform(1.2, 3.0),
            ring=ring,
            dome=rng.uniform(0, 15),
            nucleus=rng.normal(0, 8),
            envelope=0.0,
            texture=rng.uniform(2, 12),
            evenness=1.0,
            granularity=rng.uniform(2, 40),
            granules=rng.uniform(4, 18),
            seam=0.0,
        )
    return flat


def _coverage(rng: np.random.Generator, density: float) -> float:
    """Share of the area with cells: from a few islands to a sheet without gaps, which is 1 or more."""
    return density * float(rng.choice([rng.uniform(0.02, 0.3), rng.uniform(0.3, 0.9), 1.0], p=[0.2, 0.4, 0.4]))


def _sheet(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float, kind: str, **options: float
) -> list[Layer]:
    """A layer of touching cells, with rounded ones on top or in place of some."""
    stretch = options.pop("stretch", float(np.exp(np.abs(rng.normal(0, 0.25)))))
    labels, bend = partition(
        rng,
        shape,
        diameter=diameter,
        stretch=stretch,
        waviness=rng.uniform(0.2, 1.8),
        regularity=int(rng.choice([0, 1, 2])),
        **{
            "coverage": _coverage(rng, density),
            "island": rng.uniform(1.5, 9),
            "tightness": rng.choice([0.0, 0.12, 0.25]),
            **options,
        },
    )
    build = _draw_build(rng, diameter, kind)
    layers = [Layer(labels, build, bend)]
    if rng.random() < 0.3:
        layers.append(Layer(lift(rng, labels, rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.2) * diameter), build, bend))
    return layers + _rounded_among(rng, labels, diameter, kind)


def _rounded_among(rng: np.random.Generator, labels: np.ndarray, diameter: float, kind: str) -> list[Layer]:
    """Rounded cells over others, or in gaps cut out for them; ``labels`` is changed in the second case."""
    cells = int(np.count_nonzero(np.bincount(labels.ravel())[1:]))
    count = rng.binomial(cells, rng.choice([0.0, 0.03, 0.12], p=[0.45, 0.35, 0.2]))
    if count == 0 or kind == "round":
        return []
    size = np.clip(rng.uniform(0.45, 0.8) * diameter, 9, 34)
    masks = [outlines.round_cell(rng, size * np.exp(rng.normal(0, 0.12))) for _ in range(count)]
    upper = stack(rng, labels.shape, masks, overlap=0.0, most=1, touching=rng.choice([0.0, 0.3]))
    cut = rng.random() < 0.6
    for layer in upper:
        if cut:
            labels[layer > 0] = 0
    return [Layer(layer, _draw_build(rng, size, "round")) for layer in upper]


def _epithelium(rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float) -> list[Layer]:
    return _sheet(rng, shape, diameter, density, "epithelium")


def _colony(rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float) -> list[Layer]:
    return _sheet(
        rng,
        shape,
        diameter,
        density,
        "colony",
        coverage=density * rng.uniform(0.05, 0.75),
        island=rng.uniform(1.5, 5),
        tightness=rng.uniform(0.15, 0.4),
    )


def _fibroblast(rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float) -> list[Layer]:
    stretch = rng.uniform(2, 6)
    if rng.random() < 0.6:
        return _sheet(rng, shape, diameter, density, "fibroblast", stretch=stretch, island=rng.uniform(1.5, 6))
    count = _count(rng, shape, diameter, density * rng.uniform(0.05, 0.7))
    masks = [
        outlines.spindle_cell(rng, diameter * np.exp(rng.normal(0, 0.25)), stretch * np.exp(rng.normal(0, 0.2)))
        for _ in range(count)
    ]
    return _stacked(rng, shape, masks, diameter, "fibroblast", overlap=rng.uniform(0.05, 0.5))


def _spread(rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float) -> list[Layer]:
    if rng.random() < 0.5:
        return _sheet(rng, shape, diameter, density, "spread")
    count = _count(rng, shape, diameter, density * rng.uniform(0.03, 0.8))
    spindly = rng.choice([0.0, rng.uniform(0, 0.5)])
    masks = []
    for size in diameter * np.exp(rng.normal(0, 0.3, count)):
        if rng.random() < spindly:
            masks.append(outlines.spindle_cell(rng, 0.7 * size, rng.uniform(2, 6)))
        else:
            masks.append(outlines.spread_cell(rng, size, np.exp(np.abs(rng.normal(0, 0.5)))))
    return _stacked(rng, shape, masks, diameter, "spread", overlap=rng.uniform(0.0, 0.35))


def _stellate(rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float) -> list[Layer]:
    count = _count(rng, shape, diameter, density * rng.uniform(0.05, 0.9))
    others = rng.choice([0.0, rng.uniform(0, 0.5)])
    masks = []
    for size in diameter * np.exp(rng.normal(0, 0.3, count)):
        kind = rng.random()
        if kind < 0.6 * others:
            masks.append(outlines.spindle_cell(rng, 0.35 * size, rng.uniform(3, 9)))
        elif kind < others:
            masks.append(outlines.spread_cell(rng, 0.5 * size, rng.uniform(1, 3)))
        else:
            masks.append(outlines.stellate_cell(rng, size))
    return _stacked(rng, shape, masks, 0.5 * diameter, "stellate", overlap=rng.uniform(0.1, 0.6))


def _round(rng: np.random.Generator, shape: tuple[int, int], diameter: float, density: float) -> list[Layer]:
    count = _count(rng, shape, diameter, density * rng.choice([rng.uniform(0.005, 0.1), rng.uniform(0.1, 0.6)]))
    spread = rng.uniform(0.05, 0.3)
    masks = [outlines.round_cell(rng, diameter * np.exp(rng.normal(0, spread))) for _ in range(count)]
    layers = stack(rng, shape, masks, overlap=rng.choice([0.0, 0.15]), most=2, touching=rng.uniform(0, 0.8))
    return [Layer(labels, _draw_build(rng, diameter, "round")) for labels in layers]


def _count(rng: np.random.Generator, shape: tuple[int, int], diameter: float, coverage: float) -> int:
    return int(np.clip(coverage * shape[0] * shape[1] / (0.8 * diameter**2), 3, 900))


def _stacked(
    rng: np.random.Generator, shape: tuple[int, int], masks: list, diameter: float, kind: str, overlap: float
) -> list[Layer]:
    build = _draw_build(rng, diameter, kind)
    layers = [
        Layer(labels, build)
        for labels in stack(rng, shape, masks, overlap=overlap, most=3, touching=rng.uniform(0, 0.6))
    ]
    return layers + _rounded_among(rng, layers[0].labels, diameter, kind)


def of_shapes(
    rng: np.random.Generator, shape: tuple[int, int], masks: Sequence[np.ndarray], density: float
) -> list[Layer]:
    """Cells of given shapes, any number of times each, alone, side by side and over each other.

    Args:
        rng: source of randomness.
        shape: height and width of the label images.
        masks: bool, tight, one component each, at least one.
        density: share of the area that they take relative to what is usual, above 0.
    """
    areas = np.array([np.count_nonzero(mask) for mask in masks])
    coverage = density * rng.choice([rng.uniform(0.02, 0.2), rng.uniform(0.2, 0.7)])
    count = int(np.clip(coverage * shape[0] * shape[1] / areas.mean(), 1, 900))
    chosen = [masks[i] for i in rng.integers(len(masks), size=count)]
    build = _draw_build(rng, 2 * float(np.sqrt(np.median(areas) / np.pi)), "spread")
    labels = stack(rng, shape, chosen, overlap=rng.uniform(0.0, 0.3), most=3, touching=rng.uniform(0, 0.6))
    return [Layer(own, build) for own in labels]


LAYOUTS = {
    "epithelium": _epithelium,
    "colony": _colony,
    "fibroblast": _fibroblast,
    "spread": _spread,
    "stellate": _stellate,
    "round": _round,
}
