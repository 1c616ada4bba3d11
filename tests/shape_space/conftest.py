"""A space of drawn shapes, trained once in two seconds."""

import numpy as np
import pytest

from cellseg_d2.shape_space.space import ShapeSpace
from cellseg_d2.shape_space.train import Settings, train_space
from tests.shape_space.drawn import bar, ellipse, table

SETTINGS = Settings(latent=2, width=8, steps=200, batch=32, rate=5e-3)


@pytest.fixture(scope="session")
def training_cells():
    rng = np.random.default_rng(0)
    return table({"ellipse": [ellipse(rng) for _ in range(400)], "bar": [bar(rng) for _ in range(60)]})


@pytest.fixture(scope="session")
def space(training_cells) -> ShapeSpace:
    return train_space(training_cells, SETTINGS)
