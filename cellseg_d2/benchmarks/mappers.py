"""How fast samples are made, and how large their targets are: stock Detectron2 against this project.

Both do the same to an image: rotation by any angle, short side to 1000 pixels, a random flip. Both get the same angle,
since both draw it first from the same random state.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks, Instances
from detectron2.utils.env import seed_all_rng

from cellseg_d2.data.augmentations.crops import RotateZoomCrop, Rotation
from cellseg_d2.data.augmentations.resize import ResizeShortestEdge
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.io.progress import track

Mapper = Callable[[dict], dict]

ALL_ANGLES = (-180.0, 180.0)
SHORT_SIDE = 1000
LONG_SIDE = 1400  # bounds nothing for images up to 1.4 times as wide as high
STOCK = "stock"
# Calls that take less are repeated until they took so long together: a single one would mostly measure the clock.
LEAST_SECONDS = 0.15


def stock_mapper(augmentations: Sequence[T.Augmentation] | None = None) -> DatasetMapper:
    """Detectron2's own mapper as its users set it up for COCO RLE and rotations.

    Args:
        augmentations: by default rotation, resize and flip.
    """
    if augmentations is None:
        augmentations = [
            T.RandomRotation(list(ALL_ANGLES), expand=False),
            T.ResizeShortestEdge(SHORT_SIDE, LONG_SIDE),
            T.RandomFlip(),
        ]
    return DatasetMapper(
        is_train=True,
        augmentations=list(augmentations),
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format="bitmask",
        recompute_boxes=True,  # a rotated box is not tight
    )


def cell_mapper(augmentations: Sequence[T.Augmentation] | None = None, cache_bytes: int = 0) -> CellDatasetMapper:
    """This project's mapper; for the arguments see :func:`stock_mapper` and :class:`CellDatasetMapper`."""
    if augmentations is None:
        augmentations = [Rotation(ALL_ANGLES), ResizeShortestEdge(SHORT_SIDE, LONG_SIDE), T.RandomFlip()]
    return CellDatasetMapper(True, augmentations=augmentations, cache_bytes=cache_bytes)


def compared_mappers(height: int, width: int) -> dict[str, Mapper]:
    """The stock mapper and the variants of the new one, by name, for images of that size in pixels.

    * ``new``: the same steps; instead of black corners the image is enlarged as little as necessary.
    * ``new, same scale``: without enlarging, so that the same cells are kept as by the stock mapper; the corners are
      filled with background.
    * ``new, one warp``: rotation, change of size and crop at once, into the same size.
    * ``new, cached``: as ``new``, when image and masks were decoded before.
    """
    resize = T.ResizeShortestEdge(SHORT_SIDE, LONG_SIDE)
    output = resize.get_output_shape(height, width, SHORT_SIDE, LONG_SIDE)
    scale = output[0] / height
    same = [Rotation(ALL_ANGLES, 1.0, "background"), ResizeShortestEdge(SHORT_SIDE, LONG_SIDE), T.RandomFlip()]
    warp = [RotateZoomCrop(ALL_ANGLES, (scale, 1.7 * scale), output), T.RandomFlip()]
    return {
        STOCK: stock_mapper(),
        "new": cell_mapper(),
        "new, same scale": cell_mapper(same),
        "new, one warp": cell_mapper(warp),
        "new, cached": cell_mapper(cache_bytes=2**40),
    }


@dataclass(frozen=True)
class Rate:
    """Times of one mapper over images and turns; entry ``i`` of every mapper is of the same image and turn.

    Attributes:
        seconds, cpu_seconds: mean of the calls, wall clock and processor.
        cells: in the targets.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    cells: list[int]

    @property
    def per_second(self) -> float:
        """Images per second over all of them."""
        return len(self.seconds) / sum(self.seconds)

    def times_faster_than(self, other: Rate) -> dict[str, float]:
        """How many times faster: in all, by processor time, and the median, least and greatest of the single ones."""
        single = np.array(other.seconds) / np.array(self.seconds)
        return {
            "all": sum(other.seconds) / sum(self.seconds),
            "cpu": sum(other.cpu_seconds) / sum(self.cpu_seconds),
            "median": float(np.median(single)),
            "least": float(single.min()),
            "greatest": float(single.max()),
        }


def measure_rates(
    mappers: Mapping[str, Mapper], entries: Sequence[dict], turns: int = 1, title: str = "mappers"
) -> dict[str, Rate]:
    """Time the mappers in turn, A B C A B C …, on every image.

    Args:
        mappers: by name.
        entries: dataset dicts whose image files exist.
        turns: on every image; each draws other random numbers, the same for all mappers.
        title: title of the progress bar.
    """
    for mapper in mappers.values():  # imports, caches of the file system, and first-time costs of libraries
        mapper(min(entries, key=lambda entry: len(entry["annotations"])))
    rates = {name: Rate([], [], []) for name in mappers}
    for turn in range(turns):
        for index, entry in enumerate(track(entries, f"{title}, turn {turn + 1} of {turns}")):
            for name, mapper in mappers.items():
                if isinstance(mapper, CellDatasetMapper):
                    mapper.load(entry)  # what may be cached, is
                _time(mapper, entry, turn * len(entries) + index, rates[name])
    return rates


def _time(mapper: Mapper, entry: dict, seed: int, rate: Rate) -> None:
    calls, wall, cpu = 0, 0.0, 0.0
    while wall < LEAST_SECONDS:
        seed_all_rng(seed)
        began, began_cpu = time.perf_counter(), time.process_time()
        sample = mapper(entry)
        wall += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
        calls += 1
    rate.seconds.append(wall / calls)
    rate.cpu_seconds.append(cpu / calls)
    rate.cells.append(len(sample["instances"]))


@dataclass(frozen=True)
class TargetSize:
    """Bytes of a sample's targets, with all ``cells`` of an image: the tensors, and what a pickle of them takes."""

    cells: int
    tensors: int
    pickled: int


def measure_targets(entry: dict) -> dict[str, TargetSize]:
    """Targets of the whole image, resized and not rotated, so that all of its cells are in both forms."""
    mappers = {
        STOCK: stock_mapper([T.ResizeShortestEdge(SHORT_SIDE, LONG_SIDE)]),
        "new": cell_mapper([ResizeShortestEdge(SHORT_SIDE, LONG_SIDE)]),
    }
    sizes = {}
    for name, mapper in mappers.items():
        targets = mapper(entry)["instances"]
        sizes[name] = TargetSize(len(targets), tensor_bytes(targets), pickled_bytes(targets))
    return sizes


def tensor_bytes(instances: Instances) -> int:
    """Bytes of boxes, classes and masks, which may be ``BitMasks`` or ``LabelMasks``."""
    masks = instances.gt_masks
    own = [masks.tensor] if isinstance(masks, BitMasks) else [masks.layers, masks.layer_of_mask, masks.label_of_mask]
    return sum(tensor.nbytes for tensor in (instances.gt_boxes.tensor, instances.gt_classes, *own))


def pickled_bytes(value: object) -> int:
    """Length of a pickle with the tensors' values in it, which is what goes from one process to another."""
    sink = _Counter()
    _PlainPickler(sink, protocol=5).dump(value)
    return sink.length


class _Counter:
    """A file that only counts, so that a pickle of gigabytes takes no memory."""

    length = 0

    def write(self, data: bytes | memoryview) -> int:
        self.length += memoryview(data).nbytes
        return memoryview(data).nbytes


class _PlainPickler(pickle.Pickler):
    """Writes tensors as their arrays; torch's own way makes several copies of them first."""

    def reducer_override(self, value: object):
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, torch.Tensor) else NotImplemented
