"""The stream of samples depends on the seed and on the place alone."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from cellseg_d2.config import load_config
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.data.stream import SampleStream, build_stream_loader, derived_seed, seeded
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.errors import CellSegError
from tests.discs import write_disc_dataset

# Of 7 images, some wider than high.
ENTRIES = [{"file_name": str(i), "width": 20 if i % 3 else 10, "height": 15} for i in range(7)]


def draws(entry):
    """In place of the mapper: which image it is, and a draw from each random state."""
    return entry["file_name"], random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def make(batch_size=2, seed=5, group_shapes=False):
    return SampleStream(ENTRIES, draws, TrainingSampler(7, seed=1), batch_size, seed, group_shapes)


def take(stream, count, workers=0):
    loader = build_detection_train_loader(
        stream, mapper=None, total_batch_size=2, aspect_ratio_grouping=False, num_workers=workers
    )
    return [sample for batch in islice(loader, count) for sample in batch]


@pytest.mark.parametrize("group_shapes", [False, True])
def test_it_can_begin_anywhere_with_any_number_of_workers(group_shapes):
    whole = take(make(group_shapes=group_shapes), 9)
    assert len({sample[1:] for sample in whole}) == 18, "every sample draws apart"
    for start, workers in ((4, 0), (0, 2), (5, 2)):
        stream = make(group_shapes=group_shapes)
        stream.start_at(start)
        assert take(stream, 9 - start, workers) == whole[2 * start :]


def test_another_seed_draws_other_numbers_for_the_same_images():
    one, other = take(make(seed=5), 5), take(make(seed=6), 5)
    assert [sample[0] for sample in one] == [sample[0] for sample in other]
    assert not {sample[1:] for sample in one} & {sample[1:] for sample in other}


@pytest.mark.parametrize("workers", [0, 2])
def test_shapes_are_grouped_as_detectron2_does(workers):
    """Detectron2 groups finished samples, in an order that depends on the number of workers; it is compared with 0."""
    stock = build_detection_train_loader(
        ENTRIES, mapper=lambda entry: entry, sampler=TrainingSampler(7, seed=1), total_batch_size=2
    )
    expected = [entry["file_name"] for batch in islice(stock, 12) for entry in batch]
    assert [sample[0] for sample in take(make(group_shapes=True), 12, workers)] == expected


def test_two_processes_train_on_what_one_would(monkeypatch):
    whole = take(make(batch_size=2), 6)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(list(islice(make(batch_size=1), 6)))
    assert [sample for pair in zip(*shares, strict=True) for sample in pair] == whole


def test_what_the_model_draws_is_not_touched():
    seed_all_rng(1)
    expected = draws(ENTRIES[0])
    seed_all_rng(1)
    next(iter(make()))
    with seeded(9):
        inside = draws(ENTRIES[0])
    assert draws(ENTRIES[0]) == expected
    with seeded(9):
        assert draws(ENTRIES[0]) == inside != expected


def test_seeds_of_different_uses_differ():
    seeds = {derived_seed(*words) for words in np.ndindex(4, 3, 2, 20)}
    assert len(seeds) == 4 * 3 * 2 * 20
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.fixture
def config(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path)

    def make(*opts):
        return prepare_training(load_config(repository / "configs/quickstart/instant_test.yaml", [*map(str, opts)]))

    return make


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("DATASETS.TRAIN_REPEAT_FACTOR", "[['discs_train', 1.5]]"),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler", "DATALOADER.REPEAT_THRESHOLD", 0.9),
    ],
)
def test_each_sampler_and_each_augmentation_obeys_the_seed(config, opts):
    """Whatever was drawn before."""
    augmentations = list(AUGMENTATION_REGISTRY)

    def images(seed):
        np.random.seed()  # noqa: NPY002  something else each time
        cfg = config(*opts, "SEED", seed, "INPUT.COPY_PASTE.PROBABILITY", 0.7, "INPUT.AUGMENTATIONS", augmentations)
        loader = build_stream_loader(cfg, CellDatasetMapper(cfg, is_train=True))
        return [sample["image"] for batch in islice(loader, 4) for sample in batch]

    one, same, other = images(3), images(3), images(4)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_that_cannot_be_shared_is_refused(config, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(CellSegError, match="IMS_PER_BATCH is 2, which 3 processes"):
        build_stream_loader(config("SOLVER.IMS_PER_BATCH", 2), lambda entry: entry)
