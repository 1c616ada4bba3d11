"""The images that are measured: a converted dataset, with noise in place of image files that are not at hand."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog
from PIL import Image

from cellseg_d2.datasets.convert import read_dataset, split_dataset, write_dataset
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.sartorius import SartoriusCsv
from cellseg_d2.errors import CellSegError


def convert_csv(csv: str | Path, images: str | Path | None, folder: str | Path) -> Path:
    """Convert the competition's ``train.csv`` into ``folder``; returns the JSON file.

    Args:
        csv: also gzipped.
        images: the folder of the images. They, or some of them, may be missing.
        folder: where to write.
    """
    source = SartoriusCsv(csv, ImageFolder(images, allow_missing=True) if images else None)
    dataset, _ = split_dataset(read_dataset({"": source}))
    return write_dataset(dataset, folder)[0]


def annotated_entries(dataset: str) -> list[dict]:
    """The dataset dicts of all images with cells; stock Detectron2 does not train on others.

    Raises:
        CellSegError: there is none.
    """
    entries = [entry for entry in DatasetCatalog.get(dataset) if entry["annotations"]]
    if not entries:
        raise CellSegError(f"the dataset {dataset} has no image with cells")
    return entries


def densest(entries: Sequence[dict]) -> dict:
    """The image with the most cells."""
    return max(entries, key=lambda entry: len(entry["annotations"]))


def some(entries: Sequence[dict], limit: int, seed: int = 0) -> list[dict]:
    """``limit`` random entries in their own order, the same for the same seed; all of them if ``limit`` is 0."""
    if limit <= 0 or limit >= len(entries):
        return list(entries)
    chosen = np.random.default_rng(seed).choice(len(entries), limit, replace=False)
    return [entries[index] for index in sorted(chosen.tolist())]


def with_stand_ins(entries: Sequence[dict], folder: str | Path) -> tuple[list[dict], int]:
    """Entries whose image files exist: a missing one is replaced by noise, written into ``folder``.

    The noise depends on the file's name and size only. Its grain and contrast are about those of phase contrast, so
    that it takes a PNG reader about as long as a real image.

    Returns:
        The entries, and how many of them have noise.
    """
    result, replaced = [], 0
    for entry in entries:
        path = Path(entry["file_name"])
        if not path.is_file():
            replaced += 1
            height, width = entry["height"], entry["width"]
            rng = np.random.default_rng([zlib.crc32(path.name.encode()), height, width])
            noise = 128 + 25 * cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 1.0)
            path = Path(folder) / f"{path.stem}.png"
            Image.fromarray(np.clip(np.rint(noise), 0, 255).astype(np.uint8)).save(path)
        result.append({**entry, "file_name": str(path)})
    return result, replaced
