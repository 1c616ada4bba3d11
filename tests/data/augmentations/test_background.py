"""The background's level and noise are found between cells."""

import cv2
import numpy as np
import pytest

from cellseg_d2.data.augmentations.background import Background


def crowded(noise: np.ndarray) -> np.ndarray:
    """Noise around a slope from 100 to 140, a third of it covered by contrasty cells."""
    height, width = noise.shape
    image = np.linspace(100, 140, width)[None, :] + noise
    generator = np.random.default_rng(1)
    for top in range(10, height - 30, 40):
        for left in range(10, width - 30, 40):
            image[top : top + 24, left : left + 24] = generator.normal(180, 40, (24, 24))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_cells_do_not_count():
    image = crowded(np.random.default_rng(0).normal(0, 5, (400, 600)))
    background = Background.of(image)
    assert background.std == pytest.approx(5, rel=0.25)
    assert background.grain < 0.4
    columns, rows = np.float32([[20, 300, 580]]), np.float32([[200, 200, 200]])
    np.testing.assert_allclose(background.level_at(columns, rows)[0], [101, 120, 139], atol=4)


def test_coarse_noise_is_told_from_fine_noise():
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (400, 600)), (0, 0), 1.0)
    background = Background.of(crowded(5 * noise / noise.std()))
    assert background.grain == pytest.approx(0.9, abs=0.3)


def test_the_tile_has_the_noise_and_repeats():
    background = Background(np.full((3, 3), 100, np.float32), 8, std=4.0, grain=1.0)
    tile = background.noise(np.random.default_rng(0))
    assert tile.std() == pytest.approx(4, rel=1e-3)
    inner = np.abs(np.diff(tile, axis=1)).mean()
    assert np.abs(tile[:, 0] - tile[:, -1]).mean() == pytest.approx(inner, rel=0.2)
    correlation = (tile[:, 1:] * tile[:, :-1]).mean() / tile.var()
    assert correlation == pytest.approx(np.exp(-0.25), abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (8, 8), (9, 100)])
def test_tiny_and_constant_images(shape):
    background = Background.of(np.full(shape, 77, np.uint8))
    assert background.std == 0
    assert not background.noise(np.random.default_rng(0)).any()
    assert background.level_at(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32)) == pytest.approx(77, abs=0.1)
