"""The field of drawn cells against the directions that it must have."""

import numpy as np
import pytest

from cellseg_d2.masks import flows
from cellseg_d2.masks.flows import flow_field
from tests.shapes import arc, crowd, disc, grid, star

TURNS = [  # of an image, and of a vector (x, y)
    (lambda image: image[..., :, ::-1], lambda x, y: (-x, y)),
    (lambda image: image[..., ::-1, :], lambda x, y: (x, -y)),
    (lambda image: np.rot90(image, 1, axes=(-2, -1)), lambda x, y: (y, -x)),
    (lambda image: np.rot90(image, 2, axes=(-2, -1)), lambda x, y: (-x, -y)),
    (lambda image: np.rot90(image, 3, axes=(-2, -1)), lambda x, y: (-y, x)),
]


def cosine(field, x, y):
    return (field[0] * x + field[1] * y) / np.maximum(np.hypot(x, y), 1e-9)


@pytest.mark.parametrize("radius", [3, 8, 20, 45])
def test_in_a_disc_it_points_to_the_middle(radius):
    size, centre = 100, (48.0, 51.0)
    mask = disc(size, *centre, radius)
    rows, columns = grid(size)
    field = flow_field(mask.astype(np.int32))
    away = mask & (np.hypot(rows - centre[0], columns - centre[1]) > 1)
    agreement = cosine(field, centre[1] - columns, centre[0] - rows)[away]
    assert agreement.mean() > 0.99
    assert agreement.min() > 0.93
    assert not field[:, ~mask].any()
    assert np.hypot(*field)[away] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("width", "half_angle"), [(9, 1.2), (7, 2.5)])
def test_in_a_crescent_it_goes_along_the_arc(width, half_angle):
    """The middle lies outside of the cell; the way to its centre is a curve."""
    size, y, x, radius = 120, 60.0, 60.0, 40.0
    mask = arc(size, y, x, radius, width, half_angle)
    rows, columns = grid(size)
    field = flow_field(mask.astype(np.int32))
    angle = np.arctan2(rows - y, columns - x)
    # On the line in the middle of the arc, away from its ends and from the centre at angle 0.
    line = mask & (np.abs(np.hypot(rows - y, columns - x) - radius) < 1)
    line &= (np.abs(angle) > 8 / radius) & (np.abs(angle) < half_angle - width / radius)
    assert line.sum() > 50
    tangent = -np.sign(angle)
    agreement = cosine(field, -np.sin(angle) * tangent, np.cos(angle) * tangent)[line]
    assert agreement.mean() > 0.98
    assert agreement.min() > 0.85


def test_a_centre_is_in_the_body_of_a_cell_with_branches():
    mask = star(128, 40, 40, arms=1, length=80, width=3)
    field = flow_field(mask.astype(np.int32))
    rows, columns = grid(128)
    ends = mask & (np.hypot(rows - 40, columns - 40) > 30)
    agreement = cosine(field, 40 - columns, 40 - rows)[ends]
    assert agreement.mean() > 0.7  # at the sides of the branch also toward its middle
    assert agreement.min() > 0


@pytest.mark.parametrize(("turn", "vector"), TURNS)
def test_it_turns_with_the_image(turn, vector):
    labels = np.zeros((96, 96), np.int32)
    for label, mask in enumerate([star(96, 30, 30, 5, 25, 3), disc(96, 70, 70, 12.5), arc(96, 60, 25, 15, 5, 2.0)], 1):
        labels[mask] = label
    labels[80:90, 2:20] = 4  # even sides have two middles
    turned = flow_field(np.ascontiguousarray(turn(labels)))
    expected = np.stack(vector(*turn(flow_field(labels))))
    assert np.abs(turned - expected).max() < 1e-3


def test_neighbours_do_not_mix():
    labels = crowd(120, 60, 11)
    whole = flow_field(labels)
    for label in range(1, 61, 7):
        alone = flow_field(np.where(labels == label, 5, 0))
        assert np.abs(whole - alone)[:, labels == label].max() < 1e-4


def test_parts_of_a_label_have_centres_of_their_own():
    labels = np.where(disc(60, 15, 15, 8) | disc(60, 45, 45, 8), 3, 0)
    field = flow_field(labels)
    rows, columns = grid(60)
    for y, x in ((15, 15), (45, 45)):
        own = disc(60, y, x, 8) & ~disc(60, y, x, 1.5)
        assert cosine(field, x - columns, y - rows)[own].min() > 0.9


def test_long_thin_cells_have_a_direction_everywhere():
    """Heat falls by orders of magnitude along a process; nowhere may it be lost."""
    labels = np.zeros((60, 900), np.int32)
    labels[20:23, 5:890] = 1
    labels[10:35, 440:465] = 1
    field = flow_field(labels)
    left, right = field[0, 21, 6:430], field[0, 21, 475:889]
    assert (left > 0.99).all()
    assert (right < -0.99).all()


def test_nothing_of_nothing():
    assert not flow_field(np.zeros((7, 9), np.int64)).any()
    assert not flow_field(np.eye(5, dtype=np.int32)[:1]).any()  # a single pixel


def test_memory_is_bounded_whatever_the_labels(monkeypatch):
    """Labels that reach over the whole image, as a network's may that has learnt nothing."""
    labels = np.random.default_rng(0).integers(0, 40, (120, 150))
    labels[:, ::30] = 0
    whole = flow_field(labels)
    monkeypatch.setattr(flows, "_ATLAS_PIXELS", 1)
    assert np.array_equal(flow_field(labels), whole)
