"""Both mappers do the same to a sample, and what is measured of them adds up."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.env import seed_all_rng

from cellseg_d2.benchmarks import mappers
from cellseg_d2.benchmarks.inputs import annotated_entries
from cellseg_d2.data.catalog import register_json
from tests.discs import write_disc_dataset
from tests.stock_masks import to_bitmasks


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return annotated_entries(register_json(write_disc_dataset(tmp_path_factory.mktemp("m")) / "instances_train.json"))


def test_stock_and_new_get_the_same_rotation(entries):
    """At the same scale the same cells are left, in the same places, within the rounding of the nearest pixel."""
    compared = mappers.compared_mappers(96, 96)
    for seed in range(4):
        samples = {}
        for name in ("stock", "new, same scale"):
            seed_all_rng(seed)
            samples[name] = compared[name](entries[0])
        stock, new = samples["stock"], samples["new, same scale"]
        assert stock["image"].shape == new["image"].shape == (3, 1000, 1000)
        stock, new = stock["instances"], new["instances"]
        masks = to_bitmasks(new.gt_masks).tensor
        assert len(masks) == len(stock)
        # The flip is drawn later, and may be another one.
        assert (
            max(least_overlap(masks, stock.gt_masks.tensor), least_overlap(masks.flip(2), stock.gt_masks.tensor)) > 0.85
        )
        assert stock.gt_classes.tolist() == new.gt_classes.tolist()


def least_overlap(some, others):
    """The least IoU of masks (N, H, W) with those of the same index."""
    return ((some & others).sum((1, 2)) / (some | others).sum((1, 2))).min()


def test_every_variant_makes_samples_of_one_size(entries):
    for name, mapper in mappers.compared_mappers(96, 96).items():
        seed_all_rng(3)
        assert mapper(entries[0])["image"].shape == (3, 1000, 1000), name


def test_mappers_are_timed_in_turn_with_the_same_draws(entries, monkeypatch):
    monkeypatch.setattr(mappers, "LEAST_SECONDS", 1e-9)
    calls = []

    def mapper(name):
        def call(entry):
            calls.append((name, entry["image_id"], np.random.rand()))  # noqa: NPY002
            return {"instances": [0] * 7}

        return call

    rates = mappers.measure_rates({"a": mapper("a"), "b": mapper("b")}, entries[:2], turns=2)
    timed = calls[2:]  # the first are for warming up
    assert [name for name, _, _ in timed] == ["a", "b"] * 4
    assert [image for _, image, _ in timed] == [1, 1, 2, 2] * 2
    draws = [value for _, _, value in timed]
    assert draws[::2] == draws[1::2]
    assert len(set(draws)) == 4
    assert rates["a"].cells == [7] * 4
    assert len(rates["a"].seconds) == len(rates["b"].cpu_seconds) == 4


def test_rates_compare_in_all_and_one_by_one():
    slow, fast = mappers.Rate([2.0, 4.0, 6.0], [1.0, 1.0, 2.0], [1]), mappers.Rate([1.0, 1.0, 1.0], [0.5] * 3, [1])
    assert slow.per_second == pytest.approx(3 / 12)
    gain = fast.times_faster_than(slow)
    assert gain["all"] == pytest.approx(4)
    assert gain["cpu"] == pytest.approx(4 / 1.5)
    assert [gain[key] for key in ("least", "median", "greatest")] == [2, 4, 6]


def test_bytes_of_targets(entries):
    sizes = mappers.measure_targets(entries[0])
    boxes_and_classes = 5 * (4 * 4 + 8)
    assert sizes["stock"].tensors == 5 * 1000 * 1000 + boxes_and_classes
    assert sizes["new"].tensors == 1000 * 1000 + boxes_and_classes + 5 * (8 + 8)  # discs do not overlap: one layer
    for size in sizes.values():
        assert size.cells == 5
        assert 0 < size.pickled - size.tensors < 2000


def test_a_pickle_is_counted_in_full():
    instances = Instances((40, 30))
    instances.gt_boxes = Boxes(torch.rand(3, 4))
    instances.gt_masks = BitMasks(torch.rand(3, 40, 30) > 0.5)
    counted = mappers.pickled_bytes(instances)
    assert counted == pytest.approx(len(pickle.dumps(instances)), abs=2000)
    assert counted > 3 * 40 * 30
