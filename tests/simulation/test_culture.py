"""Whole images of cultures: masks, coverage, sizes, overlap, and none where none is asked for."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.simulation.culture import LEAST, simulate_culture
from cellseg_d2.simulation.culture_kinds import CULTURE_TYPES, DIAMETERS
from cellseg_d2.simulation.microscopes import MODALITIES, Microscope

SIZE = (200, 260)


def simulate(kind, seed, **options):
    return simulate_culture(kind, np.random.default_rng([seed, 5]), *SIZE, **options)


def counts(masks, size=SIZE):
    """How many masks cover each pixel."""
    total = np.zeros(size, dtype=int)
    for crop in masks:
        total[crop.slices] += crop.mask
    return total


@pytest.fixture(scope="module")
def images():
    """Several images of each kind, by kind."""
    return {kind: [simulate(kind, seed) for seed in range(5)] for kind in CULTURE_TYPES}


@pytest.mark.parametrize("kind", CULTURE_TYPES)
def test_every_mask_is_one_tight_component_inside_the_image(images, kind):
    for image, masks in images[kind]:
        assert image.shape == SIZE
        assert image.dtype == np.uint8
        for crop in masks:
            x0, y0, x1, y1 = crop.box
            assert 0 <= x0 < x1 <= SIZE[1]
            assert 0 <= y0 < y1 <= SIZE[0]
            assert crop.mask.dtype == bool
            assert crop.area >= LEAST
            assert cv2.connectedComponents(crop.mask.astype(np.uint8), connectivity=8)[0] == 2
            assert all(crop.mask.any(axis=axis)[[0, -1]].all() for axis in (0, 1))


@pytest.mark.parametrize("kind", CULTURE_TYPES)
def test_same_seed_same_image(images, kind):
    image, masks = simulate(kind, 2)
    before, expected = images[kind][2]
    np.testing.assert_array_equal(image, before)
    assert [crop.box for crop in masks] == [crop.box for crop in expected]
    assert all((a.mask == b.mask).all() for a, b in zip(masks, expected, strict=True))
    assert (simulate(kind, 3)[0] != image).any()


@pytest.mark.parametrize("kind", ["epithelium", "colony"])
def test_densest_sheets_have_no_gaps(kind):
    """At 50 times the usual density every draw is a sheet; rounded cells in place of others leave thin gaps."""
    covers = [np.mean(counts(simulate(kind, seed, density=50.0)[1]) > 0) for seed in range(8)]
    assert min(covers) > 0.95


def test_sheets_are_disjoint_but_for_cells_over_others():
    overlaps = [np.mean(counts(simulate("epithelium", seed, density=50.0)[1]) > 1) for seed in range(10)]
    assert min(overlaps) == 0
    assert max(overlaps) > 0
    assert np.median(overlaps) < 0.1


@pytest.mark.parametrize("kind", ["spread", "stellate"])
def test_the_truth_of_cells_over_each_other_is_whole(kind):
    """Some pixels belong to two cells, and cells that lie over each other are no smaller than others."""
    overlapping = [
        masks for seed in range(5) if (counts(masks := simulate(kind, seed, density=3.0)[1]) > 1).mean() > 0.01
    ]
    assert overlapping
    for masks in overlapping:
        total = counts(masks)
        assert total.max() <= 4
        assert total.sum() == sum(crop.area for crop in masks)


@pytest.mark.parametrize("kind", CULTURE_TYPES)
def test_sizes_are_in_range(images, kind):
    low, high = DIAMETERS[kind]
    inner = [
        np.sqrt(4 / np.pi * crop.area)
        for _, masks in images[kind]
        for crop in masks
        if crop.box[0] > 0 and crop.box[1] > 0 and crop.box[2] < SIZE[1] and crop.box[3] < SIZE[0]
    ]
    share = {"stellate": 0.15}.get(kind, 0.4)  # arms take little of what they span
    assert len(inner) > 20
    assert share * low < np.median(inner) < high
    assert max(inner) < 2.5 * high


@pytest.mark.parametrize("kind", CULTURE_TYPES)
def test_density_zero_is_dirt_alone(kind):
    images = [simulate(kind, seed, density=0) for seed in range(4)]
    assert all(masks == [] for _, masks in images)
    assert all(len(np.unique(image)) > 1 for image, _ in images)


def test_more_density_more_cells():
    few, many = (
        np.mean([len(simulate("round", seed, density=density)[1]) for seed in range(6)]) for density in (0.2, 2.0)
    )
    assert 2 * few < many


@pytest.mark.parametrize("modality", MODALITIES)
def test_cells_show_under_every_microscope(modality):
    scope = replace(Microscope(noise=1.0, dirt=0.0), modality=modality, base=60 if modality == "fluorescence" else 128)
    scope = replace(scope, gain=100.0 if modality == "fluorescence" else 2.0)
    for kind in CULTURE_TYPES:
        contrasts = []
        for seed in range(3):
            image, masks = simulate(kind, seed, scope=scope)
            contrasts.append(image[counts(masks) > 0].astype(float).std())
        assert np.median(contrasts) > 3, kind


def test_nothing_is_annotated_beyond_the_aperture():
    scope = Microscope(aperture=0.75)
    image, masks = simulate("epithelium", 0, density=50.0, scope=scope)
    covered = counts(masks) > 0
    assert not covered[0, 0]
    assert not covered[-1, -1]
    assert covered[SIZE[0] // 2, SIZE[1] // 2]
    assert np.quantile(image[covered], 0.01) > 40
    assert np.quantile(image[~covered & (counts(masks) == 0)], 0.5) < 20


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("hela", {}),
        ("epithelium", {"height": 20}),
        ("epithelium", {"density": -1}),
        ("epithelium", {"density": np.nan}),
    ],
)
def test_senseless_wishes_are_refused(kind, options):
    with pytest.raises(CellSegError):
        simulate_culture(kind, np.random.default_rng(0), **options)
