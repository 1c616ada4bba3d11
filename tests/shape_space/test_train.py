"""Training: the same seed gives the same space, and what makes no sense is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cellseg_d2.errors import CellSegError
from cellseg_d2.shape_space.train import train_space
from tests.shape_space.conftest import SETTINGS
from tests.shape_space.drawn import ellipse, table

SHORT = replace(SETTINGS, steps=10)


def weights(space):
    return torch.cat([value.ravel() for value in space.network.state_dict().values()])


def test_training_is_repeated_by_its_seed_and_leaves_the_global_source_alone(training_cells):
    torch.manual_seed(1)
    first = train_space(training_cells, SHORT)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    again, other = (train_space(training_cells, replace(SHORT, seed=seed)) for seed in (0, 1))
    assert torch.equal(weights(first), weights(again))
    assert np.array_equal(first.references.latents, again.references.latents)
    assert not torch.allclose(weights(first), weights(other))


def test_cut_cells_are_left_out(training_cells):
    rng = np.random.default_rng(0)
    cut = table({"cut": [ellipse(rng) for _ in range(100)]}, cut=True)
    with pytest.raises(CellSegError, match=r"only 0 of 100 cells lie whole inside their images; .* needs 64"):
        train_space(cut, SHORT)
    assert train_space(training_cells, replace(SHORT, steps=1)).type_names == ["bar", "ellipse"]


def test_of_many_cells_some_are_drawn(training_cells):
    space = train_space(training_cells, replace(SHORT, steps=1, max_cells=100))
    assert len(space.references.types) == 100
    assert set(space.references.types) == {0, 1}


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"size": 40}, "size must be one of 32, 48, 64, not 40"), ({"latent": 1}, "latent dimensions must be 2 to 64")],
)
def test_settings_without_sense_are_refused(training_cells, setting, said):
    with pytest.raises(CellSegError, match=said):
        train_space(training_cells, replace(SHORT, **setting))


@pytest.mark.parametrize(("size", "latent"), [(48, 3), (64, 8)])
def test_other_sizes_and_dimensions(training_cells, size, latent):
    space = train_space(training_cells, replace(SHORT, size=size, latent=latent, steps=2))
    placed = space.place([training_cells.crops[0].mask])
    assert placed.latents.shape == (1, latent)
    assert space.pictures(placed.latents).shape == (1, size, size)
