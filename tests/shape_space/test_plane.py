"""A plane through a space of any number of dimensions."""

import numpy as np

from cellseg_d2.shape_space.plane import Plane


def test_a_space_of_two_dimensions_is_its_own_map():
    latents = np.random.default_rng(0).normal(size=(20, 2))
    plane = Plane.through(latents)
    assert np.array_equal(plane.project(latents), latents)
    assert np.array_equal(plane.lift(latents), latents)


def test_of_more_dimensions_the_two_in_which_the_cells_vary_most():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(500, 6)) * [0.1, 3, 0.1, 0.1, 1, 0.1] + 5
    plane = Plane.through(latents)
    assert np.allclose(plane.axes @ plane.axes.T, np.eye(2))
    assert plane.axes[0, 1] > 0.99
    assert plane.axes[1, 4] > 0.99
    points = rng.normal(size=(30, 2))
    assert np.allclose(plane.project(plane.lift(points)), points)
    assert np.allclose(plane.lift(plane.project(latents)), latents, atol=0.6)


def test_a_single_cell_has_a_plane():
    plane = Plane.through(np.ones((1, 4)))
    assert np.allclose(plane.axes @ plane.axes.T, np.eye(2))
    assert np.allclose(plane.project(np.ones((1, 4))), 0)
