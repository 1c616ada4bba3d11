"""Write a simulated data set as a folder in exactly the competition's layout."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_folder
from cellseg_d2.io.progress import track
from cellseg_d2.masks.crop import crop_to_kaggle
from cellseg_d2.processes import in_processes
from cellseg_d2.simulation.culture import simulate_culture
from cellseg_d2.simulation.culture_kinds import CULTURE_TYPES
from cellseg_d2.simulation.microscopes import Microscope
from cellseg_d2.simulation.optics import Appearance
from cellseg_d2.simulation.scene import check_field, simulate_image
from cellseg_d2.simulation.shapes import CELL_TYPES

COLUMNS = (
    "id",
    "annotation",
    "width",
    "height",
    "cell_type",
    "plate_time",
    "sample_date",
    "sample_id",
    "elapsed_timedelta",
)
# What can be asked for together.
KINDS = {"neurons": CELL_TYPES, "cultures": CULTURE_TYPES, "mixed": (*CELL_TYPES, *CULTURE_TYPES)}
ALL_TYPES = KINDS["mixed"]
README_TITLE = "Simulated images of cells"
_ANY_TITLE = r"Simulated (phase-contrast )?images of cells"  # also of older versions
_SPLITS = ("train", "test")
# Outlines of each type that are drawn from a space of shapes; all images take theirs from these.
_POOL = 1000
# Plate, vessel and phase channel as they are written in the competition's sample_id.
_PLATES = {
    "shsy5y": ("shsy5y[diff]", (714, 1020), "Ph_3"),
    "astro": ("astros[cereb]", (361, 362), "Ph_4"),
    "cort": ("cort[density]", (175, 258), "Ph_1"),
    **{kind: (kind, (400 + 2 * k, 401 + 2 * k), "Ph_1") for k, kind in enumerate(CULTURE_TYPES)},
}


class Shapes(Protocol):
    """Where outlines of cells may come from, such as :class:`cellseg_d2.shape_space.space.ShapeSpace`."""

    type_names: list[str]

    def draw(self, rng: np.random.Generator, count: int, cell_type: str | None = None) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class ImageJob:
    """What is needed to simulate one image of a data set, in whichever process.

    Attributes:
        split: ``"train"`` or ``"test"``.
        name: the image's id, 12 hexadecimal digits.
        cell_type: one of the simulator's cell types, or of a space of shapes.
        seed: seed of the image's own random numbers.
        well_seed: seed of what all images of the well have in common.
        height, width: in pixels.
        density: number of cells relative to what is usual.
        dead_cells: mean number of floating dead cells beside what is usual.
        sample: values of the columns plate_time, sample_date, sample_id and elapsed_timedelta.
    """

    split: str
    name: str
    cell_type: str
    seed: np.random.SeedSequence
    well_seed: np.random.SeedSequence
    height: int
    width: int
    density: float
    dead_cells: float
    sample: tuple[str, str, str, str]


def write_dataset(
    folder: str | Path,
    *,
    kind: str = "neurons",
    shapes: Shapes | None = None,
    images_per_type: int | Mapping[str, int] = 20,
    test_per_type: int | Mapping[str, int] = 4,
    seed: int = 0,
    height: int = 520,
    width: int = 704,
    density: float = 1.0,
    dead_cells: float = 0.0,
    images_per_well: int = 3,
    workers: int = 1,
    overwrite: bool = False,
    command: str = "",
    progress: bool = True,
) -> dict[str, dict[str, int]]:
    """Simulate a data set in the competition's layout.

    It has ``train.csv``, ``train/``, ``test/``, ``sample_submission.csv``, a ``README.txt``, and in ``test.csv`` the
    truth of the test images, which the competition keeps to itself. Train and test images come from
    different wells. The folder is written atomically, and its contents do not depend on ``workers``.

    Args:
        folder: folder to write; must not exist, or be empty, or be an older simulated data set if ``overwrite``.
        kind: which cell types: one of :data:`KINDS`.
        shapes: simulate cultures of the types of this space instead, whose outlines are drawn from it.
        images_per_type, test_per_type: number of images, for all types of the kind or by cell type (types left out get
            none).
        seed: seed of all random numbers.
        height, width: size of the images in pixels.
        density: number of cells relative to what is usual.
        dead_cells: mean number of floating dead cells in 520 × 704 pixels of an image of neurons, beside what is usual.
        images_per_well: images of a type that share a plate and a well, and with it their looks.
        workers: number of processes.
        overwrite: replace an older simulated data set.
        command: noted in ``README.txt``.
        progress: show a bar.

    Returns:
        ``{"train": {"images": …, "cells": …}, "test": …}``.

    Raises:
        CellSegError: an argument makes no sense, or the folder holds something else.
    """
    folder = Path(os.path.realpath(folder))  # the target of a link, which is replaced while the link stays
    if kind not in KINDS:
        raise CellSegError(f"the kind {kind!r} cannot be simulated; choose from {', '.join(KINDS)}")
    types = KINDS[kind] if shapes is None else tuple(shapes.type_names)
    counts = {"train": _counts(images_per_type, "train", types), "test": _counts(test_per_type, "test", types)}
    _check(counts, seed, height, width, density, dead_cells, images_per_well, workers)
    _check_free(folder, overwrite)
    types = ALL_TYPES if shapes is None else types
    jobs = plan_images(counts, seed, height, width, density, dead_cells, images_per_well, types)
    pools = {} if shapes is None else _draw_pools(shapes, seed)
    with atomic_folder(folder) as building:
        for split in _SPLITS:
            (building / split).mkdir()
        summary = _write_images(building, jobs, workers, progress, pools)
        _write_submission(building, [job.name for job in jobs if job.split == "test"])
        size = f"{width} x {height} pixels, density {density:g}, {images_per_well} images per well, seed {seed}"
        (building / "README.txt").write_text(_readme(counts, summary, size, command), encoding="utf-8")
    return summary


def plan_images(
    counts: Mapping[str, Mapping[str, int]],
    seed: int,
    height: int,
    width: int,
    density: float,
    dead_cells: float,
    images_per_well: int,
    types: Sequence[str] = ALL_TYPES,
) -> list[ImageJob]:
    """The jobs of a data set, sorted by split and id; see :func:`write_dataset` for the arguments.

    The number of a type among ``types`` is a part of its images' seeds.
    """
    jobs: list[ImageJob] = []
    for type_index, cell_type in enumerate(types):
        rng = np.random.default_rng(np.random.SeedSequence([seed, type_index]))
        # Train and test wells come from one shuffled list, so that they differ.
        places = [(f"{'ABCDEFGH'[k // 12]}{k % 12 + 1}", vessel) for vessel in _plate(cell_type)[1] for k in range(96)]
        wells = iter(rng.permutation(len(places)))
        for split_index, split in enumerate(_SPLITS):
            total = counts[split].get(cell_type, 0)
            for first in range(0, total, images_per_well):
                well, vessel = places[next(wells, first % len(places))]
                well_seed = np.random.SeedSequence([seed, type_index, split_index, first, 1])
                for index in range(first, min(first + images_per_well, total)):
                    image_seed = np.random.SeedSequence([seed, type_index, split_index, index, 2])
                    name = image_seed.generate_state(2, np.uint64)[0].tobytes().hex()[:12]
                    site = (index - first) % 4 + 1
                    sample = _sample(cell_type, rng, well, vessel, site)
                    jobs.append(
                        ImageJob(
                            split, name, cell_type, image_seed, well_seed, height, width, density, dead_cells, sample
                        )
                    )
    return sorted(jobs, key=lambda job: (_SPLITS.index(job.split), job.name))


def _draw_pools(shapes: Shapes, seed: int) -> dict[str, list[np.ndarray]]:
    """Outlines of each type, which do not depend on how many images there are."""
    return {
        name: shapes.draw(np.random.default_rng([seed, index]), _POOL, name)
        for index, name in enumerate(shapes.type_names)
    }


def _plate(cell_type: str) -> tuple[str, tuple[int, int], str]:
    """What :data:`_PLATES` says; a name of any other type has no "_", which stands between the parts."""
    return _PLATES.get(cell_type, (cell_type.replace("_", "-"), (600, 601), "Ph_1"))


def _sample(cell_type: str, rng: np.random.Generator, well: str, vessel: int, site: int) -> tuple[str, str, str, str]:
    plate, _, channel = _plate(cell_type)
    minutes = 30 * int(rng.integers(0, 48))
    hours, minutes = divmod(minutes, 60)
    date = f"20{19 + vessel % 2}-{vessel % 12 + 1:02d}-{vessel % 27 + 1:02d}"
    sample_id = f"{plate}_{well}-{site}_Vessel-{vessel}_{channel}"
    return f"{hours:02d}h{minutes:02d}m00s", date, sample_id, f"0 days {hours:02d}:{minutes:02d}:00"


def _run_job(job: ImageJob, pools: Mapping[str, list[np.ndarray]]) -> tuple[bytes, list[str]]:
    """The PNG file's bytes and the annotations of one image; ``pools`` has outlines, by type, drawn from a space."""
    well, rng = np.random.default_rng(job.well_seed), np.random.default_rng(job.seed)
    size = (job.height, job.width, job.density)
    if job.cell_type in pools:
        image, masks = simulate_culture(job.cell_type, rng, *size, Microscope.draw(well), pools[job.cell_type])
    elif job.cell_type in CULTURE_TYPES:
        image, masks = simulate_culture(job.cell_type, rng, *size, Microscope.draw(well))
    else:
        image, masks = simulate_image(job.cell_type, rng, *size, Appearance.draw(well), job.dead_cells)
    written, data = cv2.imencode(".png", image)
    if not written:
        raise RuntimeError(f"OpenCV could not encode the image {job.name} as PNG")
    return data.tobytes(), [crop_to_kaggle(mask, job.width) for mask in masks]


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _write_images(
    folder: Path, jobs: list[ImageJob], workers: int, progress: bool, pools: Mapping[str, list[np.ndarray]]
) -> dict[str, dict[str, int]]:
    summary = {split: {"images": 0, "cells": 0} for split in _SPLITS}
    workers = min(workers, len(jobs))
    run = partial(_run_job, pools=pools)
    results = in_processes(run, jobs, workers, _one_thread) if workers > 1 else (run(job) for job in jobs)
    with ExitStack() as stack:
        stack.enter_context(closing(results))
        paths = {split: folder / f"{split}.csv" for split in _SPLITS}
        writers = {
            split: csv.writer(stack.enter_context(path.open("w", newline="", encoding="utf-8")), lineterminator="\n")
            for split, path in paths.items()
        }
        for writer in writers.values():
            writer.writerow(COLUMNS)
        bar = track(zip(jobs, results, strict=True), "simulating", total=len(jobs), shown=progress)
        for job, (data, annotations) in bar:
            (folder / job.split / f"{job.name}.png").write_bytes(data)
            rows = ((job.name, text, job.width, job.height, job.cell_type, *job.sample) for text in annotations)
            writers[job.split].writerows(rows)
            summary[job.split]["images"] += 1
            summary[job.split]["cells"] += len(annotations)
    return summary


def _write_submission(folder: Path, names: list[str]) -> None:
    rows = "".join(f"{name},\n" for name in names)
    (folder / "sample_submission.csv").write_text(f"id,predicted\n{rows}", encoding="utf-8")


def _counts(value: int | Mapping[str, int], split: str, types: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(types, value) if not isinstance(value, Mapping) else dict(value)
    for cell_type, count in counts.items():
        if cell_type not in types:
            raise CellSegError(f"the cell type {cell_type!r} cannot be simulated; choose from {', '.join(types)}")
        if count < 0:
            raise CellSegError(f"{count} {split} images of {cell_type} were asked for; take 0 or more")
    return counts


def _check(
    counts: Mapping[str, Mapping[str, int]],
    seed: int,
    height: int,
    width: int,
    density: float,
    dead_cells: float,
    images_per_well: int,
    workers: int,
) -> None:
    if not sum(sum(c.values()) for c in counts.values()):
        raise CellSegError("no image was asked for; take at least one of one cell type")
    if seed < 0:
        raise CellSegError(f"the seed {seed} is negative; take 0 or more")
    check_field(height, width, density)
    if not 0 <= dead_cells < np.inf:
        raise CellSegError(f"{dead_cells} dead cells per image make no sense; take 0 or more")
    if dead_cells and not any(c.get(neuron) for c in counts.values() for neuron in CELL_TYPES):
        raise CellSegError("dead cells are simulated among neurons alone; ask for neurons, or for none (0)")
    if images_per_well < 1 or workers < 1:
        raise CellSegError("the numbers of images per well and of workers must be at least 1")


def _check_free(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CellSegError(f"{folder} is a file; name a folder that does not exist yet")
    if not any(folder.iterdir()):
        return
    readme = folder / "README.txt"
    simulated = readme.is_file() and re.match(_ANY_TITLE, readme.read_text(encoding="utf-8", errors="replace"))
    if not simulated:
        raise CellSegError(f"{folder} holds files that are not simulated data set; name another folder")
    if not overwrite:
        raise CellSegError(
            f"{folder} already holds a simulated data set; overwrite it (--overwrite) or name another folder"
        )


def _readme(counts: dict, summary: dict, size: str, command: str) -> str:
    lines = [
        README_TITLE,
        "=" * len(README_TITLE),
        "Everything in this folder was made by a program (cellseg_d2.simulation). No cell is real; plates, wells",
        "and dates are made up. The layout is that of the Kaggle competition Sartorius - Cell Instance Segmentation;",
        "test.csv, which the competition keeps to itself, holds the truth of the test images.",
        "",
        f"images: {size}",
    ]
    for split in _SPLITS:
        by_type = ", ".join(f"{count} {cell_type}" for cell_type, count in counts[split].items())
        lines.append(f"{split}: {summary[split]['images']} images ({by_type}), {summary[split]['cells']} cells")
    if command:
        lines.append(f"command: {command}")
    return "\n".join(lines) + "\n"
