"""The competition's ``train.csv``: one row per cell with ``id,annotation,width,height,cell_type`` and maybe more.

An annotation is Kaggle RLE: "start length" pairs, 1-indexed, row-major. See :mod:`cellseg_d2.masks.rle`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord, main_type
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.csv import read_csv_table
from cellseg_d2.masks.crop import runs_to_crop
from cellseg_d2.masks.rle import MAX_PIXELS, RLEError, clean_runs, parse_kaggle_rle, run_problems

CELL_TYPES = ("shsy5y", "astro", "cort")
REQUIRED = ("id", "annotation", "width", "height", "cell_type")
OPTIONAL = ("sample_id",)

_PROBLEM_KINDS = {
    "empty": "empty mask",
    "non-positive length": "non-positive length",
    "outside the image": "outside the image",
    "overlaps itself": "overlaps itself",
}


def plate_and_well(sample_id: str) -> str | None:
    """Plate and well of a field: ``"astros[cereb]_G11-4_Vessel-361_Ph_4"`` → ``"astros[cereb]_G11"``.

    None if the text has another form.
    """
    parts = sample_id.split("_")
    if len(parts) < 2 or len(parts[1]) < 3:
        return None
    return f"{parts[0]}_{parts[1][:-2]}"


class SartoriusCsv:
    """A ``train.csv`` to be read image by image.

    Attributes:
        path: path of the CSV.
        categories: the cell types, in the order of their category ids.
        ids: ids of the images, in the order of their first rows.
        rows: number of rows.
        has_groups: whether plate and well of the images are known.

    Args:
        path: path of the CSV, also gzipped.
        images: the folder of the images; None reads without them.
        cell_types: the types that may occur; None takes those that the file names.
        drop: ids of images to leave out.
        keep_empty: keep images of the folder that no row names: fields without cells.
        category: the type of cells without one, if all types are taken.
    """

    def __init__(
        self,
        path: str | Path,
        images: ImageFolder | None = None,
        cell_types: tuple[str, ...] | None = CELL_TYPES,
        drop: tuple[str, ...] = (),
        keep_empty: bool = False,
        category: str = "",
    ):
        self.path = Path(path)
        self.images = images
        self.drop = set(drop)
        self._table = read_csv_table(path, REQUIRED, OPTIONAL)
        if cell_types is None:
            self._table["cell_type"] = self._table["cell_type"].replace("", category)
            cell_types = tuple(pd.unique(self._table["cell_type"]))
        self.categories = cell_types
        self.rows = len(self._table)
        self._row_numbers = self._table.index.to_numpy()
        places: Mapping[str, np.ndarray] = self._table.groupby("id", sort=False).indices
        self.ids = [image for image in pd.unique(self._table["id"]) if image]
        self._places = {image: np.sort(places[image]) for image in self.ids}
        self.has_groups = "sample_id" in self._table
        if images is not None:
            images.expect(self.ids)
            if keep_empty:
                empty = [Path(name).stem for name in images.unexpected(self.ids)]
                self._places |= {image: np.zeros(0, dtype=int) for image in empty}
                self.ids += empty
        if not self.ids:
            raise CellSegError(f"{path} has no row with an image id")

    def __len__(self) -> int:
        return len(self.ids)

    def records(self, log: FindingLog) -> Iterator[ImageRecord]:
        """Read image by image, so that memory does not grow with their number.

        Rows with an open error are left out; refuse the result when ``log.open_errors`` is not empty.

        Args:
            log: collects the findings. If ``log.clean`` is set, rows are repaired or dropped instead of refused.
        """
        for place in np.flatnonzero((self._table["id"] == "").to_numpy()):
            log.note("missing id", None, int(self._row_numbers[place]), "the column id is empty", repair="row dropped")
        for image in self.ids:
            if image in self.drop:
                log.note("left out", image, None, "asked to be dropped", action="image dropped")
                continue
            record = self._read_image(image, log)
            if record is not None:
                yield record
        if self.images is not None:
            for name in self.images.unexpected(self.ids):
                log.note("image without rows", Path(name).stem, None, f"{name} is named by no row")

    def _read_image(self, image: str, log: FindingLog) -> ImageRecord | None:
        table = self._table.iloc[self._places[image]]
        rows = self._row_numbers[self._places[image]].tolist()
        sizes = [_size(*pair) for pair in zip(table["height"], table["width"], strict=True)]
        given = Counter(size for size in sizes if size)
        if self.images is None:
            file_name, size = f"{image}.png", None
        else:
            found = self.images.look_up(image, set(given), log)
            if found is None:
                return None
            file_name, size = found
        size = size or (given.most_common(1)[0][0] if given else None)
        cells = []
        columns = (table["annotation"], table["cell_type"], table["height"], table["width"])
        for row, own_size, values in zip(rows, sizes, zip(*columns, strict=True), strict=True):
            cell = self._read_row(log, image, row, size, own_size, *values)
            if cell is not None:
                cells.append(cell)
        if size is None:  # no row says how large the image is, and each has been reported
            return None
        group = self._group(image, table, rows[0], log) if rows else None
        return ImageRecord(image, file_name, *size, main_type(cell.cell_type for cell in cells), group, cells)

    def _group(self, image: str, table: pd.DataFrame, row: int, log: FindingLog) -> str | None:
        if not self.has_groups:
            return None
        sample = table["sample_id"].iloc[0]
        group = plate_and_well(sample)
        if group is None:
            log.note("unreadable sample_id", image, row, f"{sample!r} is not PLATE_WELL-SITE_…")
        return group

    def _read_row(
        self,
        log: FindingLog,
        image: str,
        row: int,
        size: tuple[int, int] | None,
        own_size: tuple[int, int] | None,
        annotation: str,
        cell_type: str,
        height: str,
        width: str,
    ) -> CellAnnotation | None:
        """The row's cell, or None when it is dropped or refused."""
        usable = True
        if own_size is None:
            repair = f"read for the image's {size[1]} × {size[0]} pixels" if size else "row dropped"
            log.note("malformed size", image, row, f"width {width!r}, height {height!r}", repair=repair)
            usable = size is not None
        elif size is not None and own_size != size:
            # The width tells where lines end: read with another one, the mask would be another shape.
            reason = f"{own_size[1]} × {own_size[0]} pixels, but the image has {size[1]} × {size[0]}"
            log.note("inconsistent size", image, row, reason, repair="row dropped")
            usable = False
        if cell_type not in self.categories:
            known = f"{', '.join(self.categories)} (--cell-types names others)"
            reason = f"{cell_type!r} is not one of {known}" if cell_type else "no cell type given"
            log.note("unknown cell type", image, row, reason, repair="row dropped")
            usable = False
        try:
            runs = parse_kaggle_rle(annotation)
        except RLEError as error:
            log.note("malformed mask", image, row, str(error), repair="row dropped")
            return None
        if not usable or size is None:
            return None
        runs = _checked_runs(runs, *size, image, row, log)
        return CellAnnotation(runs_to_crop(runs, size[1]), cell_type, row) if len(runs) else None


def _checked_runs(runs: np.ndarray, height: int, width: int, image: str, row: int, log: FindingLog) -> np.ndarray:
    """Canonical runs of the pixels inside the image, none when there is an error that may not be repaired."""
    if _are_canonical(runs, height * width):  # almost always, and quick to check
        return runs
    problems = run_problems(runs, height, width)
    clean = clean_runs(runs, height, width)
    errors = [name for name in problems if name in _PROBLEM_KINDS]
    for name in errors:
        reason, repair = _describe(name, runs, clean, height, width)
        log.note(_PROBLEM_KINDS[name], image, row, reason, repair=repair if len(clean) else "row dropped")
    if "unsorted" in problems:
        log.note("unsorted runs", image, row, "runs are not in ascending order", action="read in ascending order")
    return clean if log.clean or not errors else clean[:0]


def _are_canonical(runs: np.ndarray, size: int) -> bool:
    """Whether ``runs`` are what :func:`cellseg_d2.masks.rle.clean_runs` would make of them, and there are some."""
    if len(runs) == 0 or runs.max() > size or runs[0, 0] < 0 or runs[:, 1].min() <= 0:
        return False
    ends = runs[:, 0] + runs[:, 1]
    return bool(ends[-1] <= size and (runs[1:, 0] > ends[:-1]).all())


def _describe(name: str, runs: np.ndarray, clean: np.ndarray, height: int, width: int) -> tuple[str, str]:
    if name == "empty":
        return "the annotation is empty", ""
    starts, lengths = runs[:, 0], runs[:, 1]
    if name == "non-positive length":
        bad = lengths <= 0
        return f"run {_as_text(runs[bad][0])} covers no pixel", f"{bad.sum()} runs dropped"
    if name == "outside the image":
        size = height * width
        bad = (starts < 0) | (starts >= size) | (lengths > size - starts)
        return f"run {_as_text(runs[bad][0])} leaves 1…{size}, the {width} × {height} pixels", "cut off at the image"
    doubled = int(lengths.clip(min=0).sum() - clean[:, 1].sum())
    return f"{doubled} pixels are given more than once", "runs merged"


def _as_text(run: np.ndarray) -> str:
    return f"'{run[0] + 1} {run[1]}'"


def _size(height: str, width: str) -> tuple[int, int] | None:
    """``(height, width)`` of a row; None when they are not a size of an image. ``"704.0"`` is read as 704."""
    try:
        numbers = float(height), float(width)
    except ValueError:
        return None
    if not all(number.is_integer() and number > 0 for number in numbers) or math.prod(numbers) > MAX_PIXELS:
        return None
    return int(numbers[0]), int(numbers[1])


@DATASET_READERS.register("csv", metavar="FILE")
def open_csv(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """the competition's train.csv, also gzipped"""
    types = options.cell_types or CELL_TYPES
    return {"": SartoriusCsv(path, options.image_folder(), types, options.drop, options.keep_empty)}
