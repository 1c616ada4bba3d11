"""Splits: groups stay whole, types are shared out, the same seed gives the same split."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_d2.datasets.folds import split_groups
from cellseg_d2.errors import CellSegError

# Images of each type in each of up to 12 groups.
group_sizes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)).filter(any), min_size=2, max_size=12)


def spread(sizes):
    """The groups and types of all images."""
    images = [(g, t) for g, counts in enumerate(sizes) for t, count in enumerate(counts) for _ in range(count)]
    return [g for g, _ in images], [t for _, t in images]


def deviation(sizes, part, shares):
    """How often a part lacks a type that it could have, and how far the parts are from their shares of each type."""
    sizes = np.array(sizes)
    counted = np.concatenate([sizes, sizes.sum(axis=1, keepdims=True)], axis=1)
    counted = counted[:, counted.sum(axis=0) > 0]
    loads = np.array([counted[np.asarray(part) == p].sum(axis=0) for p in range(len(shares))]) / counted.sum(axis=0)
    could = np.append((counted[:, :-1] > 0).sum(axis=0) >= len(shares), True)
    shares = np.array(shares)[:, None]
    return int((loads[:, could] == 0).sum()), float((((loads - shares) ** 2) / shares).sum())


@settings(max_examples=30, deadline=None)
@given(group_sizes, st.sampled_from([(0.8, 0.2), (0.5, 0.5), (0.9, 0.1)]), st.integers(0, 3))
def test_groups_stay_whole_and_no_part_is_empty(sizes, shares, seed):
    groups, types = spread(sizes)
    part = split_groups(groups, types, shares, seed)
    assert np.array_equal(part, split_groups(groups, types, shares, seed))
    assert set(part.tolist()) == {0, 1}
    assert all(len({p for g, p in zip(groups, part, strict=True) if g == name}) == 1 for name in set(groups))


@settings(max_examples=40, deadline=None)
@given(group_sizes.filter(lambda sizes: len(sizes) <= 8), st.sampled_from([(0.8, 0.2), (0.5, 0.5)]))
def test_as_good_as_the_best_of_all_splits_or_nearly(sizes, shares):
    groups, types = spread(sizes)
    part = split_groups(groups, types, shares)
    of_group = [part[groups.index(g)] for g in range(len(sizes))]
    best = min(deviation(sizes, other, shares) for other in itertools.product((0, 1), repeat=len(sizes)))
    absent, found = deviation(sizes, of_group, shares)
    assert absent == best[0], "a type is missing that could be everywhere"
    assert found <= best[1] + 0.1


def test_the_competition_s_make_up_is_met_closely():
    rng = np.random.default_rng(1)
    groups, types = [], []
    for cell_type, images, wells in (("shsy5y", 155, 20), ("astro", 131, 18), ("cort", 320, 40)):
        groups += [f"{cell_type}_{well}" for well in rng.integers(0, wells, images)]
        types += [cell_type] * images
    types = np.array(types)
    for shares in ([0.8, 0.2], [0.2] * 5):
        part = split_groups(groups, types, shares)
        for cell_type in set(types):
            got = np.bincount(part[types == cell_type], minlength=len(shares)) / (types == cell_type).sum()
            assert np.abs(got - shares).max() < 0.02, (cell_type, got)


def test_single_images_are_shared_out_evenly():
    types = ["a"] * 50 + ["b"] * 25 + ["c"] * 10
    part = split_groups(range(85), types, [0.2] * 5)
    assert np.array_equal(np.bincount(part), [17] * 5)
    for cell_type, each in (("a", 10), ("b", 5), ("c", 2)):
        assert np.bincount(part[np.array(types) == cell_type]).tolist() == [each] * 5


def test_seeds_differ():
    splits = {tuple(split_groups(range(40), ["a"] * 40, [0.8, 0.2], seed)) for seed in range(5)}
    assert len(splits) == 5
    assert all(sum(split) == 8 for split in splits)


def test_a_type_with_too_few_groups_goes_where_most_is():
    part = split_groups(["x", "x", "a", "b", "c", "d", "e"], ["rare"] * 2 + ["common"] * 5, [0.8, 0.2])
    assert part[:2].tolist() == [0, 0]


def test_thousands_of_images_take_no_time():
    part = split_groups(range(3000), ["a", "b", "c"] * 1000, [0.8, 0.2])
    assert part.sum() == 600


def test_too_few_groups():
    with pytest.raises(CellSegError, match="1 groups of images cannot be split into 2 parts"):
        split_groups(["a", "a"], ["t", "t"], [0.5, 0.5])
    with pytest.raises(ValueError, match="sum to 1"):
        split_groups(["a", "b"], ["t", "t"], [0.5, 0.4])
