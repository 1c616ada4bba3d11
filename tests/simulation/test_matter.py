"""What cells are made of: discs and squares with known depths, nuclei, seams and dye."""

import numpy as np
import pytest

from cellseg_d2.simulation.anatomy import Anatomy
from cellseg_d2.simulation.matter import Build, Stain, add_dye, add_thickness
from tests.shapes import label_discs

SHAPE = (160, 200)
PLAIN = {"dome": 0, "nucleus": 0, "envelope": 0, "nucleoli": 0, "granules": 0, "texture": 0, "rim": 0}


def halves():
    labels = np.ones(SHAPE, dtype=np.int32)
    labels[:, 100:] = 2
    return labels


def thickness(labels, seed=0, **build):
    field = np.zeros(labels.shape, dtype=np.float32)
    rng = np.random.default_rng(seed)
    add_thickness(field, Anatomy(labels, rng, 0.4), Build(40, **{**PLAIN, **build}), rng)
    return field


def test_no_cells_have_no_thickness():
    assert not thickness(np.zeros(SHAPE, dtype=np.int32)).any()


def test_cells_are_plateaus_that_begin_inside_their_masks():
    labels = label_discs(SHAPE, (80, 100, 40))
    field = thickness(labels, height=12, slope=1.5, inset=2)
    assert not field[labels == 0].any()
    assert field[80, 62] == pytest.approx(0, abs=4), "the mask's edge is the halo's"
    inner = field[60:100, 80:120]
    assert inner.std() < 0.01 * inner.mean()
    heights = [thickness(labels, seed, height=12)[80, 100] for seed in range(40)]
    assert np.mean(heights) == pytest.approx(12, rel=0.2)


@pytest.mark.parametrize("sign", [-1, 1])
def test_seams_lie_where_cells_touch_and_nowhere_else(sign):
    field = thickness(halves(), height=0, seam=sign * 20)
    line, apart = field[:, 99:101], np.delete(field, np.s_[94:106], axis=1)
    assert np.abs(apart).max() < 1e-3
    assert (sign * line >= 0).all()
    assert np.abs(line).max() > 8
    assert np.abs(thickness(label_discs(SHAPE, (80, 100, 40)), height=0, seam=20)).max() < 1e-3, "alone there is none"


def test_rims_lie_at_free_edges_only():
    assert np.abs(thickness(halves(), height=0, rim=20)).max() < 1e-3
    labels = label_discs(SHAPE, (80, 100, 40))
    field = thickness(labels, height=0, rim=20)
    distance = np.hypot(*(np.indices(SHAPE) - np.array([80, 100])[:, None, None]))
    assert field[(distance > 36) & (distance < 40)].mean() > 10 * np.abs(field[distance < 30]).mean()


def test_texture_fades_away_from_the_nucleus():
    labels = label_discs(SHAPE, (80, 100, 70))
    field = thickness(labels, height=0, texture=6, evenness=0.05)
    anatomy = Anatomy(labels, np.random.default_rng(0), 0.4)
    nuclear = np.full(SHAPE, np.inf)
    nuclear.ravel()[anatomy.pixels] = anatomy.nuclear
    assert field[(nuclear > 1.1) & (nuclear < 1.4)].std() > 2 * field[(nuclear > 2.1) & (labels > 0)].std()
    assert field[(nuclear > 1.1) & (nuclear < 1.4)].std() > 1.5 * field[nuclear < 0.8].std()


def test_granules_and_nucleoli_are_grains():
    labels = label_discs(SHAPE, (80, 100, 60))
    grains = thickness(labels, height=0, granules=20, granularity=30)
    assert grains.max() > 10
    assert np.median(np.abs(grains[labels > 0])) < 1
    assert any(thickness(labels, seed, height=0, nucleoli=30).max() > 5 for seed in range(3))


def test_cells_over_each_other_add_up():
    one, two = label_discs(SHAPE, (80, 80, 40)), label_discs(SHAPE, (80, 110, 40))
    field = thickness(one, 0, height=10) + thickness(two, 0, height=10)
    assert field[80, 95] == pytest.approx(thickness(one, 0, height=10)[80, 60] * 2, rel=0.01)


def dye(labels, stain):
    field = np.zeros(labels.shape, dtype=np.float32)
    rng = np.random.default_rng(0)
    anatomy = Anatomy(labels, rng, 0.4)
    add_dye(field, anatomy, Build(40), stain, rng)
    nuclear = np.full(labels.shape, np.inf)
    nuclear.ravel()[anatomy.pixels] = anatomy.nuclear
    return field, nuclear, anatomy.depth


def test_dye_is_where_the_stain_says():
    labels = label_discs(SHAPE, (80, 100, 60))
    field, nuclear, depth = dye(labels, Stain(1, 0, 0))
    assert not field[labels == 0].any()
    assert field[(nuclear > 1.3) & (nuclear < 1.6)].mean() > 4 * field[nuclear < 0.6].mean()
    field, nuclear, depth = dye(labels, Stain(0, 1, 0))
    assert field[nuclear < 0.7].mean() > 20 * field[(nuclear > 1.6) & (labels > 0)].mean()
    field, nuclear, depth = dye(labels, Stain(0, 0, 1))
    assert field[(labels > 0) & (depth < 1)].mean() > 20 * field[depth > 6].mean()


def test_dye_of_no_cells_is_none():
    assert not dye(np.zeros(SHAPE, dtype=np.int32), Stain(1, 1, 1))[0].any()
