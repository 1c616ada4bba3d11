"""What training costs: the time it waits for data, and the GPU's memory."""

from __future__ import annotations

import csv
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import detectron2.data.transforms as T
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage

from cellseg_d2.benchmarks.mappers import LONG_SIDE, SHORT_SIDE, STOCK, cell_mapper, stock_mapper
from cellseg_d2.data.augmentations.resize import ResizeShortestEdge
from cellseg_d2.engine.optimizers import build_optimizer
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network

MOST_IMAGES = 64


@dataclass(frozen=True)
class Waiting:
    """Of a training run, over the iterations whose times are known.

    Attributes:
        iterations: their number.
        seconds: seconds of all of them, with the waiting.
        data_seconds: of them, spent on waiting for data.
    """

    iterations: int
    seconds: float
    data_seconds: float

    @property
    def share(self) -> float:
        """0 … 1."""
        return self.data_seconds / self.seconds


def measure_waiting(run: str | Path) -> Waiting:
    """Read ``losses.csv`` of a run's folder, which has both times of every iteration.

    Raises:
        CellSegError: the file is missing, or lacks the times.
    """
    path = Path(run) / "losses.csv"
    if not path.is_file():
        raise CellSegError(f"{path} does not exist; --run takes the folder (OUTPUT_DIR) of a training run")
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("time") and row.get("data_time")]
    if not rows:
        raise CellSegError(f"{path} has no iteration with both data_time and time; let the run go on for longer")
    return Waiting(len(rows), sum(float(row["time"]) for row in rows), sum(float(row["data_time"]) for row in rows))


@dataclass(frozen=True)
class Memory:
    """GPU memory of training.

    Attributes:
        peak: bytes that one step on one image takes at most, model and optimizer included.
        largest_batch: images of that kind that fit, at most :data:`MOST_IMAGES`; 0 if not even one does.
    """

    peak: int
    largest_batch: int


def measure_memory(cfg: CfgNode, entry: dict) -> dict[str, Memory]:
    """Peak memory of a training step and the largest batch that fits, on the current CUDA device.

    A batch is one image with all its cells, short side 1000, several times over; every copy is moved to the GPU by
    itself, as different images would be.

    Args:
        cfg: configuration of the model, ``MODEL.DEVICE`` a CUDA device; the weights are not loaded.
        entry: dataset dict whose image file exists.
    """
    samples = {
        STOCK: stock_mapper([T.ResizeShortestEdge(SHORT_SIDE, LONG_SIDE)])(entry),
        "new": cell_mapper([ResizeShortestEdge(SHORT_SIDE, LONG_SIDE)])(entry),
    }
    step = TrainingStep(cfg)
    step([samples["new"]])  # from here on, the optimizer's state is there for both
    return {name: _measure(step, sample) for name, sample in samples.items()}


def _measure(step: TrainingStep, sample: dict) -> Memory:
    peaks = {}

    def fits(images: int) -> bool:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            step([sample] * images)
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            peaks[images] = torch.cuda.max_memory_allocated()
        return True

    largest = largest_that(fits, MOST_IMAGES)
    return Memory(peaks[1], largest)


def largest_that(fits: Callable[[int], bool], most: int) -> int:
    """The largest number in 1 … ``most`` for which ``fits``, 0 if there is none, in few tries.

    Args:
        fits: true up to some number and false from there on.
        most: where to stop.
    """
    good, bad = 0, 1
    while bad <= most and fits(bad):
        good, bad = bad, max(2 * bad, 1)
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


class TrainingStep:
    """Forward, backward and update of a freshly initialised model, once per call with a batch of samples."""

    def __init__(self, cfg: CfgNode):
        self.model = build_network(cfg).train()
        self.optimizer = build_optimizer(cfg, self.model)
        self.mixed_precision = cfg.SOLVER.AMP.ENABLED

    def __call__(self, batch: list[dict]) -> float:
        """The total loss of the batch."""
        self.optimizer.zero_grad(set_to_none=True)
        # Detectron2's models count what they do in the current storage.
        with EventStorage(), torch.autocast(self.model.device.type, enabled=self.mixed_precision):
            loss = sum(self.model(batch).values())
        loss.backward()
        self.optimizer.step()
        return loss.item()
