"""Random fields and spots: analytic moments."""

import numpy as np
import pytest

from cellseg_d2.simulation.noise import draw_spots, smooth_noise, splat


@pytest.mark.parametrize("scale", [3, 12, 40])
def test_smooth_noise_has_unit_variance_and_its_scale(scale):
    fields = [smooth_noise(np.random.default_rng(seed), (200, 300), scale) for seed in range(20)]
    assert np.mean([field.var() for field in fields]) == pytest.approx(1, abs=0.25)
    assert abs(np.mean(fields)) < 0.15

    def correlation(shift):
        return np.mean([(field[:, shift:] * field[:, : 300 - shift]).mean() for field in fields])

    assert correlation(max(scale // 4, 1)) > 0.7 * correlation(0)
    assert abs(correlation(3 * scale)) < 0.2


def test_splat_keeps_sum_and_middle():
    field = np.zeros((20, 30), dtype=np.float32)
    splat(field, np.array([[7.25, 11.6]]), np.array([3.0]))
    rows, columns = np.indices(field.shape)
    assert field.sum() == pytest.approx(3)
    assert (rows * field).sum() / 3 == pytest.approx(7.25, abs=1e-5)
    assert (columns * field).sum() / 3 == pytest.approx(11.6, abs=1e-5)


def test_splat_leaves_out_what_lies_outside():
    field = np.zeros((20, 30), dtype=np.float32)
    splat(field, np.array([[-1.0, 3], [4, 29.5], [19.5, 2], [4, -0.1]]), np.ones(4))
    assert not field.any()


def test_spots_of_one_pixel_add_up():
    field = np.zeros((20, 20), dtype=np.float32)
    splat(field, np.array([[5.0, 5], [5, 5]]), np.array([1.0, 2]))
    assert field[5, 5] == 3


@pytest.mark.parametrize("radius", [1.5, 3.0])
def test_spots_have_their_peak_and_radius(radius):
    field = np.zeros((60, 60), dtype=np.float32)
    draw_spots(field, np.array([[30.0, 20.0]]), np.array([7.0]), radius)
    assert field[30, 20] == pytest.approx(7, rel=0.05)
    ring = field[30, 20 + round(radius)]
    assert ring == pytest.approx(7 * np.exp(-(round(radius) ** 2) / (2 * radius**2)), rel=0.1)


def test_a_rim_has_the_other_sign():
    field = np.zeros((60, 60), dtype=np.float32)
    draw_spots(field, np.array([[30.0, 30.0]]), np.array([7.0]), 2.0, rim=0.8)
    assert field[30, 30] > 3
    assert field.min() < -0.5
