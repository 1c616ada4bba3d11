"""Touching cells: nearest seeds, gaps only where they are asked for, sizes and elongation."""

import numpy as np
import pytest

from cellseg_d2.simulation.partition import nearest, partition

SHAPE = (260, 320)


def areas(labels):
    return np.bincount(labels.ravel())[1:][np.bincount(labels.ravel())[1:] > 0]


def test_nearest_agrees_with_all_distances():
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, (40, 60), (25, 2))
    seeds = np.unique(seeds, axis=0).astype(float)
    labels, distance = nearest(seeds, (40, 60))
    grid = np.stack(np.indices((40, 60)), axis=-1)
    true = np.linalg.norm(grid[:, :, None] - seeds, axis=-1)
    # OpenCV's distances are off by some hundredths; ties may go either way.
    assert np.abs(distance - true.min(axis=-1)).max() < 0.1 * true.max() ** 0.5
    chosen = np.take_along_axis(true, labels[..., None] - 1, axis=-1)[..., 0]
    assert (chosen - true.min(axis=-1)).max() < 0.6


@pytest.mark.parametrize("stretch", [1.0, 4.0])
@pytest.mark.parametrize("waviness", [0.0, 1.8])
def test_a_sheet_has_no_gaps(stretch, waviness):
    labels, _ = partition(np.random.default_rng(1), SHAPE, diameter=24, stretch=stretch, waviness=waviness)
    assert labels.shape == SHAPE
    assert labels.min() > 0
    assert len(np.unique(labels)) > 50


@pytest.mark.parametrize("diameter", [14, 30, 60])
def test_cells_are_about_as_large_as_asked(diameter):
    labels, _ = partition(np.random.default_rng(2), (520, 704), diameter=diameter)
    found = np.sqrt(4 / np.pi * areas(labels).mean())
    assert found == pytest.approx(diameter, rel=0.25)


def test_coverage_leaves_gaps():
    shares = [
        np.mean(partition(np.random.default_rng(3), SHAPE, diameter=16, coverage=c)[0] > 0) for c in (0.1, 0.4, 0.8)
    ]
    assert shares[0] < 0.2 < shares[1] < 0.6 < shares[2] < 1


def test_few_cells_are_three_and_lie_in_the_image():
    for seed in range(5):
        labels, _ = partition(np.random.default_rng(seed), SHAPE, diameter=30, coverage=1e-4)
        assert 1 <= len(areas(labels)) <= 3


def test_stretched_cells_are_longer_than_wide_and_locally_parallel():
    labels, _ = partition(np.random.default_rng(4), (400, 400), diameter=20, stretch=5, waviness=0.2)
    ratios, headings = [], []
    for label in np.unique(labels):
        y, x = np.nonzero(labels == label)
        if len(y) > 100 and min(y.min(), x.min()) > 0 and max(y.max(), x.max()) < 399:
            values, vectors = np.linalg.eigh(np.cov(np.stack([y, x])))
            ratios.append(np.sqrt(values[1] / values[0]))
            headings.append((np.arctan2(*vectors[:, 1]), y.mean(), x.mean()))
    assert np.median(ratios) > 2.2
    headings = np.array(headings)
    gap = np.linalg.norm(headings[:, None, 1:] - headings[None, :, 1:], axis=-1)
    order = np.cos(2 * (headings[:, None, 0] - headings[None, :, 0]))
    assert order[(gap < 40) & (gap > 0)].mean() > 0.6


def test_tight_islands_have_fewer_gaps():
    def gaps(tightness):
        options = {"diameter": 20, "coverage": 0.5, "island": 6}
        labels, _ = partition(np.random.default_rng(5), (400, 400), tightness=tightness, **options)
        inside = labels > 0
        edge = np.count_nonzero(inside[1:] != inside[:-1]) + np.count_nonzero(inside[:, 1:] != inside[:, :-1])
        return edge

    assert gaps(0.3) < gaps(0)


def test_same_seed_same_cells():
    one, two = (partition(np.random.default_rng(6), SHAPE, diameter=20, coverage=0.5)[0] for _ in range(2))
    np.testing.assert_array_equal(one, two)
