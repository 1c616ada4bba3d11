"""Predictions as labels to train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from cellseg_d2 import __version__
from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.coco_json import EncodedImage, category_ids, encode_record, relative_root, write_coco_files
from cellseg_d2.datasets.convert import AUDIT_FILE
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord, main_type
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_set, write_json_atomic
from cellseg_d2.io.folders import common_folder
from cellseg_d2.postprocess.steps import Cells


class PseudoLabels:
    """Predicted cells of images, gathered and then written as a data set for training.

    Args:
        paths: of the images that will be labelled; their common folder becomes the data set's ``image_root``.
        categories: names, in the order of their ids.

    Raises:
        CellSegError: two files have the same name.
    """

    def __init__(self, paths: Sequence[Path], categories: Sequence[str]):
        self.root = common_folder(path.resolve().parent for path in paths)
        self.categories = tuple(categories)
        self.images: list[EncodedImage] = []
        self.without_cells: list[str] = []
        self.left_out = 0
        stems = Counter(path.stem for path in paths)
        twice = next((stem for stem, count in stems.items() if count > 1), None)
        if twice is not None:
            raise CellSegError(f"several images are called {twice!r}, so their labels could not be told apart; rename")

    def add(
        self, path: Path, cells: Cells, names: Sequence[str], detected: int, *, scored: bool = True, least: int = 1
    ) -> None:
        """Label one image.

        Args:
            path: of the image.
            cells: what was found in it.
            names: a category for each class of ``cells``.
            detected: number of detections before thresholds, for the audit.
            scored: whether the scores mean something and are to be kept.
            least: an image with fewer cells is left out, since nothing tells that it is really empty.
        """
        if len(cells) < least:
            self.without_cells.append(path.stem)
            self.left_out += detected
            return
        kinds = [names[index] for index in cells.classes]
        scores = [round(float(score), 4) if scored else None for score in cells.scores]
        annotations = [
            CellAnnotation(crop, kind, None, score)
            for crop, kind, score in zip(cells.crops, kinds, scores, strict=True)
        ]
        file_name = path.resolve().relative_to(self.root).as_posix()
        record = ImageRecord(path.stem, file_name, cells.height, cells.width, main_type(kinds), None, annotations)
        self.images.append(encode_record(record, len(self.images) + 1, category_ids(self.categories)))
        self.left_out += detected - len(cells)

    def write(self, output: str | Path, **info: object) -> list[Path]:
        """Write ``instances_train.json`` and ``audit.json`` into the folder ``output``; ``info`` goes into both.

        Returns:
            Both paths.

        Raises:
            CellSegError: not one image has labels.
        """
        output = Path(output)
        if not self.images:
            raise CellSegError(
                f"none of {len(self.without_cells)} images has enough cells above the thresholds: lower them, for "
                f"example with --score-threshold"
            )
        head = {
            "description": "Pseudo-labels: predicted, not annotated",
            "converter": f"cellseg_d2 {__version__}",
            "image_root": relative_root(self.root, output),
            **info,
        }
        files = [output / "instances_train.json", output / AUDIT_FILE]
        with atomic_set():
            write_coco_files({files[0]: (self.images, head)}, self.categories)
            write_json_atomic(files[1], {**info, **self.audit()}, indent=1)
        return files

    def audit(self) -> dict:
        """How many images and cells of which kind, ready for JSON."""
        return {
            "images": len(self.images),
            "cells": sum(len(image.cells) for image in self.images),
            "per_type": {row.pop("type"): row for row in self._per_type()},
            "detections_left_out": self.left_out,
            "images_left_out": self.without_cells,
        }

    def table(self) -> str:
        """Images and cells of each category, and what was left out, as aligned text."""
        rows = [list(row.values()) for row in self._per_type()]
        headers = ["category", "images", "cells", "median area", "median score"]
        left_out = (
            f"{self.left_out} detections (thresholds, overlaps), {len(self.without_cells)} images (too few cells)"
        )
        return tabulate(rows, headers, missingval="–", floatfmt=".3g") + f"\nleft out: {left_out}"

    def _per_type(self) -> list[dict]:
        rows = []
        for name, number in category_ids(self.categories).items():
            own = [[cell for cell in image.cells if cell.category_id == number] for image in self.images]
            cells = [cell for image in own for cell in image]
            scores = [cell.score for cell in cells if cell.score is not None]
            areas = [cell.area for cell in cells]
            rows.append(
                {
                    "type": name,
                    "images": sum(map(bool, own)),
                    "cells": len(cells),
                    "median_area": float(np.median(areas)) if areas else None,
                    "median_score": float(np.median(scores)) if scores else None,
                }
            )
        return rows


def read_categories(path: str | Path) -> tuple[str, ...]:
    """Names of the categories of a COCO JSON, in the order of their ids.

    Raises:
        CellSegError: the file cannot be read, or its ids do not count from 1 on, as those of converted files do.
    """
    categories = read_coco(path).categories
    names, numbers = tuple(categories.values()), list(categories)
    if not names or numbers != list(range(1, len(names) + 1)):
        raise CellSegError(
            f"{path}: its category ids are {numbers}, not 1, 2 …; convert it with cellseg-d2 convert-to-coco"
        )
    return names


def category_in_name(path: Path, categories: Sequence[str]) -> str:
    """The category that a file is named after, as in ``astros[cereb]_G11-4_….png``; the longest if there are several.

    Raises:
        CellSegError: the name contains none.
    """
    found = [name for name in categories if name.lower() in path.stem.lower()]
    if not found:
        raise CellSegError(f"the name of {path} contains none of the categories {', '.join(categories)}")
    return max(found, key=len)
