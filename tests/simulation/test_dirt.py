"""Dirt: none, some, more; the same for the same seed."""

import numpy as np
import pytest

from cellseg_d2.simulation.dirt import add_bright_specks, add_dirt


def dirty(add, amount, seed=0):
    field = np.zeros((200, 260), dtype=np.float32)
    add(field, np.random.default_rng(seed), amount)
    return field


@pytest.mark.parametrize("add", [add_dirt, add_bright_specks])
def test_more_dirt_covers_more(add):
    assert not dirty(add, 0).any()
    some, more = (np.mean([(np.abs(dirty(add, amount, seed)) > 0.1).mean() for seed in range(20)]) for amount in (1, 5))
    assert 0 < some < more < 0.9


@pytest.mark.parametrize("add", [add_dirt, add_bright_specks])
def test_same_seed_same_dirt(add):
    np.testing.assert_array_equal(dirty(add, 2, 3), dirty(add, 2, 3))
    assert (dirty(add, 2, 3) != dirty(add, 2, 4)).any()


def test_dirt_differs_in_kind():
    fields = [dirty(add_dirt, 2, seed) for seed in range(30)]
    assert any(field.min() > -20 for field in fields)
    assert any(field.min() < -20 for field in fields)
