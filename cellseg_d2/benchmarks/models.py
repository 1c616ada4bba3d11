"""Time and memory of one training iteration and of one prediction, for each configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode

from cellseg_d2.benchmarks.memory import resident_peak
from cellseg_d2.benchmarks.training import TrainingStep
from cellseg_d2.config import load_config
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.modeling.build import build_network
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.processes import in_process
from cellseg_d2.simulation import simulate_image


@dataclass(frozen=True)
class ModelCost:
    """What a configuration's model costs.

    Attributes:
        parameters: their number.
        batch: images of a training iteration.
        megapixels: of the network's input, of all images of an iteration together.
        train_seconds, predict_seconds: median of a training iteration, and of one prediction of an image of 704 × 520.
        train_peak, predict_peak: bytes; on a GPU what PyTorch allocated there at most, otherwise by how much resident
            memory was above that of the process with all libraries loaded.
        detections: in the prediction, of random weights at threshold 0: as many as the configuration allows.
    """

    parameters: int
    batch: int
    megapixels: float
    train_seconds: float
    predict_seconds: float
    train_peak: int
    predict_peak: int
    detections: int


def measure_model(config_file: str | Path, opts: Sequence[str] = (), repeats: int = 3, threads: int = 1) -> ModelCost:
    """Measure a configuration in two processes of their own, one that trains and one that predicts.

    The weights are random: they change what is found, not what it costs to look. Training sees a simulated image
    through the configuration's own mapper; prediction is what ``cellseg-d2 infer`` does with it, and keeps as many
    detections as the configuration allows.

    Args:
        config_file: file of the configuration.
        opts: ``KEY VALUE`` pairs that change it.
        repeats: after one that is not counted.
        threads: number of threads of PyTorch.
    """
    training, prediction = (
        in_process(work, str(config_file), list(opts), repeats, threads) for work in (_train, _predict)
    )
    return ModelCost(**training, **prediction)


def _prepared(config_file: str, opts: Sequence[str], threads: int) -> CfgNode:
    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  of the augmentations
    return load_config(config_file, [*opts, "MODEL.WEIGHTS", ""])


def _train(config_file: str, opts: Sequence[str], repeats: int, threads: int) -> dict:
    cfg = _prepared(config_file, opts, threads)
    entry = _simulated_entry()
    mapper = _MemoryMapper(cfg, entry)
    before = _memory(cfg)
    step = TrainingStep(cfg)
    batch = [mapper(entry) for _ in range(cfg.SOLVER.IMS_PER_BATCH)]
    seconds = _median_seconds(lambda: step(batch), repeats)
    return {
        "parameters": sum(parameter.numel() for parameter in step.model.parameters()),
        "batch": len(batch),
        "megapixels": sum(sample["image"].shape[-2] * sample["image"].shape[-1] for sample in batch) / 1e6,
        "train_seconds": seconds,
        "train_peak": _memory(cfg) - before,
    }


def _predict(config_file: str, opts: Sequence[str], repeats: int, threads: int) -> dict:
    from cellseg_d2.inference.model import CellSegmenter  # loaded before memory is measured

    cfg = _prepared(config_file, [*opts, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"], threads)
    image, found = _simulated_entry()["image"], []
    before = _memory(cfg)
    segmenter = CellSegmenter.from_network(cfg, build_network(cfg))
    segmenter.params = PostprocessParams(score_thresholds=(0.0,), mask_thresholds=(0.5,))

    def predict() -> None:
        found.append(len(segmenter.segment(image, keep_detections=True).detections))

    seconds = _median_seconds(predict, repeats)
    return {"predict_seconds": seconds, "predict_peak": _memory(cfg) - before, "detections": found[-1]}


class _MemoryMapper(CellDatasetMapper):
    """The configuration's mapper for one image that is in no file."""

    def __init__(self, cfg: CfgNode, entry: dict):
        super().__init__(cfg, is_train=True)
        self._image = entry["image"]

    def read_image(self, dataset_dict: dict) -> np.ndarray:
        return self._image


def _simulated_entry() -> dict:
    image, crops = simulate_image("shsy5y", np.random.default_rng(0))
    annotations = [{"segmentation": crop_to_coco(crop, *image.shape), "category_id": 0, "iscrowd": 0} for crop in crops]
    height, width = image.shape
    return {"file_name": "simulated", "height": height, "width": width, "image": image, "annotations": annotations}


def _median_seconds(action: Callable[[], object], repeats: int) -> float:
    """Median time; on a CPU with one thread it is processor time, which other work on the machine does not change."""
    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    clock, seconds = time.process_time if alone else time.perf_counter, []
    for _ in range(repeats + 1):
        start = clock()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return float(np.median(seconds[1:]))


def _memory(cfg: CfgNode) -> int:
    """Largest memory so far, in bytes."""
    return torch.cuda.max_memory_allocated() if cfg.MODEL.DEVICE.startswith("cuda") else resident_peak()
