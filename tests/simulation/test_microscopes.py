"""Microscopes: what plateaus, ramps and points look like."""

from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.simulation.microscopes import MODALITIES, Microscope, field_of_view, form_picture

SHAPE = (120, 160)
CLEAR = Microscope(noise=0)


def plateau(height=20.0, shape=SHAPE, half=30):
    field = np.zeros(shape, dtype=np.float32)
    field[60 - half : 60 + half, 80 - half : 80 + half] = height
    return field


def picture(thickness, scope, dye=None, margin=0, **options):
    dye = np.zeros_like(thickness) if dye is None else dye
    return form_picture(thickness, dye, scope, np.random.default_rng(0), margin, **options).astype(float)


@pytest.mark.parametrize("modality", MODALITIES)
def test_nothing_is_the_background(modality):
    image = picture(np.zeros(SHAPE, dtype=np.float32), replace(CLEAR, modality=modality, base=90))
    assert (image == 90).all()


def test_phase_contrast_without_halo_is_the_thickness():
    image = picture(plateau(), replace(CLEAR, halo_share=0, gain=2))
    assert image[60, 80] == 128 - 40
    assert image[10, 10] == 128
    assert picture(plateau(), replace(CLEAR, halo_share=0, gain=2, inverted=True))[60, 80] == 128 + 40


def test_halos_are_bright_outside_and_leave_wide_plateaus_grey():
    image = picture(plateau(), replace(CLEAR, halo=3, halo_share=1, glow=0.2, gain=2))
    assert image[60, 80] == pytest.approx(128, abs=2)
    assert image[60, 48] > 133
    assert image[60, 52] < 123
    assert abs(image.mean() - 128) < 1


def test_the_two_sides_of_focus_are_each_other_s_negative():
    scope = replace(CLEAR, modality="brightfield", focus=1.0, halo=3.0)
    near, far = (picture(plateau(), replace(scope, inverted=inverted)) for inverted in (False, True))
    np.testing.assert_allclose(near - 128, 128 - far, atol=1)
    assert np.abs(near - 128).max() > 4
    assert abs(near[60, 80] - 128) < 3, "curvature shows, not thickness"


def test_relief_shows_slopes_along_its_direction():
    scope = replace(CLEAR, modality="relief", direction=0.0)
    image = picture(plateau(), scope) - 128
    assert image[60, 49:52].max() > 10
    assert image[60, 109:112].min() < -10
    assert np.abs(image[29:32, 80]).max() < 2, "edges along the direction do not show"
    np.testing.assert_allclose(image, -(picture(plateau(), replace(scope, direction=np.pi)) - 128), atol=1)


def test_fluorescence_shows_dye_and_no_thickness():
    scope = replace(CLEAR, modality="fluorescence", base=10, gain=100)
    assert (picture(plateau(), scope) == 10).all()
    image = picture(np.zeros(SHAPE, dtype=np.float32), scope, dye=plateau(1.0))
    assert 105 < image[60, 80] < 130
    assert image[5, 5] < 14


def test_noise_has_its_strength():
    image = picture(np.zeros((300, 300), dtype=np.float32), Microscope(noise=4, grain=0.0))
    assert image.std() == pytest.approx(4, rel=0.05)
    fine, coarse = (
        picture(np.zeros((300, 300), dtype=np.float32), Microscope(noise=4, grain=grain)) - 128 for grain in (0.0, 0.9)
    )
    assert coarse.std() == pytest.approx(4, rel=0.05)
    assert abs((fine[:, 1:] * fine[:, :-1]).mean()) < 1 < (coarse[:, 1:] * coarse[:, :-1]).mean()


def test_the_gain_is_turned_up_until_cells_show():
    field, scope = plateau(1.0), replace(CLEAR, halo_share=0, gain=1)
    faint, clear = picture(field, scope), picture(field, scope, cells=np.ones(SHAPE, dtype=bool))
    assert clear.std() > 4 * faint.std()


def test_and_down_where_they_would_be_black():
    black = [np.random.default_rng(seed) for seed in range(20)]
    field = plateau(200)
    scope = replace(CLEAR, halo_share=0, gain=3)
    darkest = [form_picture(field, field, scope, rng, 0, field > 0).min() for rng in black]
    assert np.median(darkest) > 0
    assert min(darkest) == 0, "at times they are"


def test_noise_never_hides_cells():
    field = plateau(5)
    scope = Microscope(halo_share=0, gain=1, noise=200, grain=0)
    image = picture(field, scope, cells=np.ones(SHAPE, dtype=bool))
    assert image[40:80, 60:100].mean() < 128 - 2
    assert image[:25].std() < 10


def test_margins_only_cast_their_halos():
    image = picture(plateau(), CLEAR, margin=20)
    assert image.shape == (80, 120)
    np.testing.assert_allclose(image, picture(plateau(), CLEAR)[20:-20, 20:-20], atol=1)


def test_aperture_blackens_the_corners_that_the_field_of_view_leaves_out():
    scope = replace(CLEAR, aperture=0.8)
    image, seen = picture(np.zeros(SHAPE, dtype=np.float32), scope), field_of_view(SHAPE, scope)
    assert image[0, 0] == image[-1, -1] == 0
    assert image[60, 80] == 128
    assert (image[~seen] < 70).all()
    assert (image[seen] > 58).all()
    assert field_of_view(SHAPE, CLEAR).all()


def test_vignettes_and_shading_darken_unevenly():
    image = picture(np.zeros(SHAPE, dtype=np.float32), replace(CLEAR, vignette=0.5))
    assert image[0, 0] == pytest.approx(64, abs=2)
    assert image[60, 80] == pytest.approx(128, abs=1)
    assert picture(np.zeros(SHAPE, dtype=np.float32), replace(CLEAR, shading=0.1)).std() > 3


def test_scratches_are_lines():
    scratched = picture(np.zeros(SHAPE, dtype=np.float32), replace(CLEAR, scratches=4.0)) != 128
    assert 0 < scratched.mean() < 0.3


def test_compression_changes_little():
    field = plateau()
    plain, packed = picture(field, CLEAR), picture(field, replace(CLEAR, quality=40))
    assert 0 < np.abs(plain - packed).mean() < 5


def test_random_microscopes_are_of_all_kinds_and_reproducible():
    scopes = [Microscope.draw(np.random.default_rng(seed)) for seed in range(300)]
    assert {scope.modality for scope in scopes} == set(MODALITIES)
    assert np.mean([scope.modality == "phase" for scope in scopes]) == pytest.approx(0.62, abs=0.1)
    assert 0 < np.mean([scope.inverted for scope in scopes]) < 0.5
    assert 0 < np.mean([scope.aperture < 1 for scope in scopes]) < 0.2
    assert Microscope.draw(np.random.default_rng(7)) == scopes[7]
