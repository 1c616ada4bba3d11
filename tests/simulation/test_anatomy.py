"""Depths and nuclei of discs and bars."""

import numpy as np
import pytest

from cellseg_d2.simulation.anatomy import Anatomy
from tests.shapes import label_discs

SHAPE = (160, 200)


def test_depth_nucleus_and_place_of_a_disc():
    anatomy = Anatomy(label_discs(SHAPE, (80, 100, 40)), np.random.default_rng(0), 0.4)
    assert anatomy.depth[80, 100] == pytest.approx(40, abs=2.5)
    assert anatomy.to_free[80, 70] == pytest.approx(10.5, abs=1)
    assert anatomy.area[1] == pytest.approx(np.pi * 40**2, rel=0.02)
    assert np.linalg.norm(anatomy.center[1] - (80, 100)) < 16
    assert np.sqrt(anatomy.axes[1].prod()) == pytest.approx(16, rel=0.35)
    inside = anatomy.nuclear < 1
    assert inside.sum() == pytest.approx(np.pi * anatomy.axes[1].prod(), rel=0.05)


def test_nuclei_lie_along_long_cells_and_inside_hollow_ones():
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[70:90, 20:180] = 1
    anatomy = Anatomy(labels, np.random.default_rng(0), 0.4)
    assert abs(np.sin(anatomy.turn[1])) < 0.1
    assert anatomy.axes[1, 0] > 1.3 * anatomy.axes[1, 1]
    assert anatomy.axes[1].min() <= 10


def test_places_in_nuclei_lie_in_them():
    anatomy = Anatomy(label_discs(SHAPE, (50, 60, 30), (100, 150, 40)), np.random.default_rng(0), 0.4)
    which = np.repeat([1, 2], 100)
    places = anatomy.places_in_nuclei(np.random.default_rng(1), which, 0.8)
    nuclear = np.full(SHAPE, np.inf)
    nuclear.ravel()[anatomy.pixels] = anatomy.nuclear
    y, x = np.round(places).astype(int).T
    assert (nuclear[y, x] < 1.1).all()
    assert len(np.unique(y)) > 10


def test_distances_to_contacts_and_to_the_outside():
    labels = np.ones(SHAPE, dtype=np.int32)
    labels[:, 100:] = 2
    anatomy = Anatomy(labels, np.random.default_rng(0), 0.4)
    assert anatomy.to_contact[50, 150] == pytest.approx(50, abs=1)
    assert anatomy.to_free.min() > 100, "there is no outside"
    alone = Anatomy(label_discs(SHAPE, (80, 100, 40)), np.random.default_rng(0), 0.4)
    assert alone.to_contact.min() > 100, "nothing touches"


def test_each_cell_has_one_value():
    anatomy = Anatomy(label_discs(SHAPE, (50, 60, 30), (100, 150, 40)), np.random.default_rng(0), 0.4)
    values = anatomy.each(np.random.default_rng(1), 5.0, 0.3)
    assert [len(np.unique(values[anatomy.label == label])) for label in (1, 2)] == [1, 1]
    assert len(np.unique(values)) == 2
    assert (anatomy.each(np.random.default_rng(1), 5.0, 0.0) == 5).all()
