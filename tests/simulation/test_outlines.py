"""Outlines of single cells: one tight component of about the size that was asked for."""

import cv2
import numpy as np
import pytest

from cellseg_d2.simulation.outlines import round_cell, spindle_cell, spread_cell, stellate_cell

SHAPES = {
    "round": round_cell,
    "spread": spread_cell,
    "spindle": lambda rng, diameter: spindle_cell(rng, diameter, 4.0),
    "stellate": stellate_cell,
}


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("diameter", [12, 40, 110])
def test_one_tight_component(kind, diameter):
    for seed in range(8):
        mask = SHAPES[kind](np.random.default_rng(seed), diameter)
        assert mask.dtype == bool
        assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] == 2
        assert all(mask.any(axis=axis)[[0, -1]].all() for axis in (0, 1))


@pytest.mark.parametrize(("kind", "low", "high"), [("round", 0.9, 1.25), ("spread", 0.9, 1.6), ("spindle", 0.5, 1.3)])
def test_areas_are_those_of_discs(kind, low, high):
    masks = [SHAPES[kind](np.random.default_rng(seed), 50) for seed in range(30)]
    diameters = np.sqrt(4 / np.pi * np.array([mask.sum() for mask in masks]))
    assert low * 50 < np.median(diameters) < high * 50


def test_stellate_cells_span_their_diameter_with_thin_arms():
    masks = [stellate_cell(np.random.default_rng(seed), 100) for seed in range(30)]
    assert 60 < np.median([max(mask.shape) for mask in masks]) < 150
    assert np.median([mask.mean() for mask in masks]) < 0.45


def test_spindles_are_long():
    def ratio(mask):
        values = np.linalg.eigvalsh(np.cov(np.stack(np.nonzero(mask))))
        return np.sqrt(values[1] / values[0])

    assert np.median([ratio(SHAPES["spindle"](np.random.default_rng(seed), 40)) for seed in range(20)]) > 2.2
