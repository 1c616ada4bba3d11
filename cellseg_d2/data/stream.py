"""An endless stream of training samples, each of which depends only on the seed and on its place in the stream.

Resuming therefore needs no stored state: a stream that begins at its 1000th sample continues exactly as one that was
read up to there, whatever the number of worker processes and whatever these had read ahead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset, build_detection_train_loader
from detectron2.data.common import ToIterableDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from cellseg_d2.errors import CellSegError

# First words of the seeds, so that no two uses of the configuration's seed draw the same numbers.
ORDER, SAMPLE, STEP = range(3)


def derived_seed(*words: int) -> int:
    """A seed from ``[0, 2³²)`` that differs for different ``words``, which are integers from 0 on."""
    return int(np.random.SeedSequence(words).generate_state(1)[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, all global random states but those of GPUs begin at ``seed``; after it they are as before."""
    # Without workers, samples are made in the process that trains, between the draws of its model.
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


class SampleStream(IterableDataset):
    """The samples of one of the processes that train together, without end, for a data loader that makes batches.

    Detectron2's sampler gives the order of the images, its :class:`ToIterableDataset` deals whole batches out to the
    workers. Of a stream for several processes each has every n-th sample, so that they together train on what one
    process with the same total batch size would, images and augmentations alike; only where batches are made of images
    of like shape, they may be made up otherwise.
    """

    def __init__(
        self,
        entries: Sequence[dict],
        mapper: Callable[[dict], dict],
        sampler: Sampler,
        batch_size: int,
        seed: int,
        group_shapes: bool = False,
    ):
        """
        Args:
            entries: dataset dicts.
            mapper: makes a sample of a dataset dict; all its draws come from global random states.
            sampler: gives this process's indices of ``entries``, without end and each time the same.
            batch_size: batch size of this process.
            seed: seed of all samples, at least 0.
            group_shapes: whether the images of a batch are all wider than high, or none of them is.
        """
        wide = [entry["width"] > entry["height"] for entry in entries] if group_shapes else None
        self._order = _Order(sampler, batch_size, wide)
        self._samples = _Samples(MapDataset(DatasetFromList(entries, copy=False), mapper), seed)
        self._batch_size = batch_size

    def start_at(self, iteration: int) -> None:
        """Have the stream begin with the batch of an iteration, counted from 0; for iterators made from now on."""
        self._order.skip = iteration * self._batch_size

    def __iter__(self) -> Iterator[dict]:
        return iter(ToIterableDataset(self._samples, self._order, shard_chunk_size=self._batch_size))


class _Order(Sampler):
    """Gives ``(place, index)``: an image's place in the stream of all processes, and its index."""

    def __init__(self, sampler: Sampler, batch_size: int, wide: list[bool] | None):
        self._sampler = sampler
        self._batch_size = batch_size
        self._wide = wide
        # Workers do not ask for it: in them, it need not be known.
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()
        self.skip = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        places = ((self._rank + i * self._processes, index) for i, index in enumerate(self._sampler))
        return islice(places if self._wide is None else self._grouped(places), self.skip, None)

    def _grouped(self, places: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """In the order of Detectron2's ``AspectRatioGroupedDataset``, which would group finished samples."""
        waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for place, index in places:
            group = waiting[self._wide[index]]
            group.append((place, index))
            if len(group) == self._batch_size:
                yield from group
                group.clear()


class _Samples(Dataset):
    """The mapped samples by ``(place, index)``."""

    def __init__(self, mapped: MapDataset, seed: int):
        self._mapped = mapped
        self._seed = seed

    def __len__(self) -> int:
        return len(self._mapped)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        place, index = key
        with seeded(derived_seed(self._seed, SAMPLE, place)):
            return self._mapped[index]


def build_stream_loader(cfg: CfgNode, mapper: Callable[[dict], dict]) -> DataLoader:
    """Detectron2's training loader as ``cfg`` says, with a :class:`SampleStream` for its ``dataset``.

    Args:
        cfg: ``SEED`` fixes everything; a negative one is drawn.
        mapper: for training.

    Raises:
        CellSegError: the processes cannot share a batch evenly.
    """
    processes = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise CellSegError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {processes} processes cannot share evenly: "
            f"set it to a multiple of {processes}"
        )
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    # Detectron2's samplers draw their seeds from NumPy's global state where they are not told one.
    with seeded(derived_seed(seed, ORDER)):
        parts = build_detection_train_loader.from_config(cfg, mapper=mapper)
    stream = SampleStream(
        parts.pop("dataset"),
        parts.pop("mapper"),
        parts.pop("sampler"),
        cfg.SOLVER.IMS_PER_BATCH // processes,
        seed,
        group_shapes=parts.pop("aspect_ratio_grouping"),
    )
    # With a seed of its own, since the loader would draw one from the model's random state when iteration begins.
    return build_detection_train_loader(stream, mapper=None, aspect_ratio_grouping=False, seed=seed, **parts)
