"""Cells side by side and over each other."""

import numpy as np

from cellseg_d2.simulation.layers import lift, stack

DISC = np.hypot(*np.indices((21, 21)) - 10) <= 10.2


def test_without_overlap_cells_share_one_layer_and_none_is_cut_deep():
    (labels,) = stack(np.random.default_rng(0), (200, 200), [DISC] * 60, overlap=0.0, most=3)
    areas = np.bincount(labels.ravel(), minlength=61)[1:]
    inner = [k for k in np.unique(labels[21:-21, 21:-21]) if k]
    assert len(inner) > 20
    assert all(areas[k - 1] >= 0.7 * DISC.sum() for k in inner)


def test_cells_over_each_other_keep_their_whole_masks():
    layers = stack(np.random.default_rng(1), (80, 80), [DISC] * 30, overlap=1.0, most=3)
    assert len(layers) == 3
    whole = 0
    for labels in layers:
        for label in np.unique(labels[labels > 0]):
            y, x = np.nonzero(labels == label)
            whole += len(y) == DISC.sum()
            if len(y) == DISC.sum():
                np.testing.assert_array_equal(labels[y.min() : y.max() + 1, x.min() : x.max() + 1] == label, DISC)
    assert whole >= 5
    assert ((layers[0] > 0) & (layers[1] > 0)).any()


def test_every_label_is_in_one_layer():
    layers = stack(np.random.default_rng(2), (120, 120), [DISC] * 40, overlap=0.6, most=3)
    labels = [set(np.unique(layer)) - {0} for layer in layers]
    assert sum(map(len, labels)) == len(set().union(*labels))


def test_touching_cells_lie_beside_others():
    def touched(share):
        (labels,) = stack(np.random.default_rng(3), (300, 300), [DISC] * 40, overlap=0.0, most=1, touching=share)
        near = [
            len(np.unique(labels[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4])) > 2 for y, x in np.argwhere(labels)
        ]
        return np.mean(near)

    assert touched(0.9) > 2 * touched(0.0)


def test_cells_too_large_for_the_image_are_cut_by_it():
    (labels,) = stack(np.random.default_rng(4), (30, 30), [np.ones((80, 80), dtype=bool)], overlap=0.0, most=1)
    assert labels.shape == (30, 30)


def test_lifted_cells_grow_over_their_neighbours():
    labels = np.repeat(np.arange(1, 6), 20)[None].repeat(50, axis=0).astype(np.int32)
    before = labels.copy()
    above = lift(np.random.default_rng(5), labels, 0.5, 4)
    lifted, left = set(np.unique(above)) - {0}, set(np.unique(labels)) - {0}
    assert lifted
    assert left
    assert lifted | left == {1, 2, 3, 4, 5}
    assert not lifted & left
    for label in left:
        np.testing.assert_array_equal(labels == label, before == label)
    assert ((above > 0) & (labels > 0)).any(), "they lie over what is left"
    for label in lifted:
        assert not (before[above == label] == 0).any()
