"""How much a model gains from each image that is corrected: its user's loop, with the truth as the user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg_d2.correction.next_image import rank_images
from cellseg_d2.correction.project import Project
from cellseg_d2.correction.training import correction_data, plan_training, score_of, train
from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.masks.overlaps import label_image, resolve_overlaps

ORDERS = ("unsure", "random")


@dataclass(frozen=True)
class Step:
    """A state of the loop.

    Attributes:
        order: ``"unsure"`` where the next image is the one that the model is least sure of, or ``"random"``.
        images: that were corrected so far.
        score: mean competition score of the images that nobody corrects.
        cpu_minutes: processor time that the last training took, of all its processes; all before it come on top.
    """

    order: str
    images: int
    score: float
    cpu_minutes: float


def run_loop(
    json_files: Iterable[str | Path],
    folder: str | Path,
    *,
    held_out: int = 12,
    steps: Sequence[int] = (1, 2, 4, 8),
    orders: Sequence[str] = ORDERS,
    model: str = "cells",
    iterations: int | None = None,
    seed: int = 0,
    on_stage: Callable[[str], None] = lambda said: None,
) -> Iterator[Step]:
    """Correct images by their truth, train, score, and go on from the new model.

    Args:
        json_files: COCO JSON with images; those of all together are shared out.
        folder: for the projects, one an order; new.
        held_out: images to score on, drawn at random; the others may be corrected.
        steps: numbers of corrected images after which is trained.
        orders: of the corrections.
        model: to begin with.
        iterations: of each training; by default what the number of images suggests.
        seed: of all draws.
        on_stage: told what is done next.

    Yields:
        The state at the beginning, then one after each training.

    Raises:
        CellSegError: there are too few images.
    """
    folder = Path(folder)
    records, paths = _read(json_files)
    drawn = np.random.default_rng(seed).permutation(sorted(records)).tolist()
    others, pool = drawn[:held_out], drawn[held_out:]
    if len(pool) < max(steps):
        raise CellSegError(f"{len(drawn)} images leave {len(pool)} to correct, and {max(steps)} are asked for")
    images = folder / "images"
    images.mkdir(parents=True)
    for name in pool:
        shutil.copyfile(paths[name], images / paths[name].name)
    on_stage(f"scoring {len(others)} images")
    start = _score(model, others, records, paths)
    for order in orders:
        yield Step(order, 0, start, 0.0)
        project = Project.open(folder / order, images, model)
        for count in steps:
            missing = count - len(project.corrected)
            on_stage(f"{order} order: choosing {missing} images and training on {count}")
            chosen = [name for name in pool if name not in project.corrected]
            if order == "unsure":
                chosen = list(rank_images(project, CellSegmenter.from_pretrained(project.model)))
            for name in chosen[:missing]:
                _correct(project, records[name])
            data, began = correction_data(project), _cpu_seconds()
            plan = plan_training(data, project.model, iterations=iterations, folds=0, seed=seed)
            train(project.folder, data, project.model, plan, progress=False)
            minutes = (_cpu_seconds() - began) / 60
            yield Step(order, count, _score(project.model, others, records, paths), minutes)


def _cpu_seconds() -> float:
    """Processor time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def _read(json_files: Iterable[str | Path]) -> tuple[dict[str, ImageRecord], dict[str, Path]]:
    records, paths = {}, {}
    for path in json_files:
        places = read_coco(path).image_paths()
        for record in load_coco(path):
            assert record.number is not None
            records[record.id], paths[record.id] = record, places[record.number]
    return records, paths


def _score(model: str, names: Iterable[str], records: dict[str, ImageRecord], paths: dict[str, Path]) -> float:
    segmenter = CellSegmenter.from_pretrained(model)
    return float(np.mean([score_of(segmenter.segment(paths[name]), records[name]) for name in names]))


def _correct(project: Project, record: ImageRecord) -> None:
    """Save what somebody who corrects all would have painted."""
    crops = [cell.crop for cell in record.cells]
    crops = resolve_overlaps(crops, record.height, record.width, policy="smaller")
    project.save(record.id, label_image(crops, record.height, record.width))
