"""The competition's submission file: columns ``id,predicted``, one row a cell, Kaggle RLE, no pixel given twice."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.io.csv import read_csv_table, spreadsheet_text
from cellseg_d2.masks.crop import MaskCrop, kaggle_to_crop
from cellseg_d2.masks.rle import RLEError, clean_runs, parse_kaggle_rle, run_problems

COLUMNS = ("id", "predicted")


def write_submission(
    path: str | Path, cells: Mapping[str, Iterable[str]] | Iterable[tuple[str, Iterable[str]]]
) -> None:
    """Write a submission atomically.

    Args:
        path: ends in ``.csv`` or ``.csv.gz``. Ids are written as :func:`cellseg_d2.io.csv.spreadsheet_text`.
        cells: Kaggle RLE texts by image id, or as pairs with it, in the order in which they are written. Empty texts,
            of cells without pixels, are left out. An image without a cell gets one row with an empty ``predicted``, as
            the competition wants.

    Example:
        >>> write_submission("submission.csv", {"7ae19de7bc2a": ["1 3 10 2"], "d48ec7815252": []})  # doctest: +SKIP
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as binary:
        # Without a name and a time in its header, the same cells give the same file.
        packed = gzip.GzipFile("", "wb", fileobj=binary, mtime=0) if Path(path).suffix == ".gz" else binary
        with io.TextIOWrapper(packed, encoding="utf-8", newline="") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            for image, predicted in cells.items() if isinstance(cells, Mapping) else cells:
                rows = [row for row in map(str.strip, predicted) if row]
                writer.writerows((spreadsheet_text(image), row) for row in rows or [""])


def is_csv(path: str | Path) -> bool:
    """Whether a file has the name of a submission, or of the competition's annotations: ``.csv``, also packed."""
    return Path(path).name.lower().endswith((".csv", ".csv.gz"))


def read_submission(path: str | Path) -> dict[str, list[str]]:
    """Read a submission (``.csv`` or ``.csv.gz``).

    Returns:
        Kaggle RLE texts by image id, both in the file's order; an image whose ``predicted`` is empty has no texts. They
        are not checked here: see :func:`validate_submission`.

    Raises:
        CellSegError: the file is missing, is not a CSV, lacks a column or has a row without ``id``.
    """
    table = read_csv_table(path, COLUMNS)
    nameless = table.index[table["id"] == ""]
    if len(nameless):
        raise CellSegError(f"{path}, line {nameless[0]}: the column 'id' is empty")
    cells: dict[str, list[str]] = {image: [] for image in table["id"].unique()}
    for image, text in zip(table["id"], table["predicted"], strict=True):
        if text:
            cells[image].append(text)
    return cells


def decode_cells(texts: Sequence[str], height: int, width: int, where: str) -> list[MaskCrop]:
    """The masks of one image's texts; parts outside the image are cut off, and a mask may have no pixel.

    Args:
        texts: Kaggle RLE, as :func:`read_submission` returns them.
        height, width: size of the image in pixels.
        where: file and image, for the message.

    Raises:
        CellSegError: a text is not a list of pairs; the message says which.
    """
    crops = []
    for number, text in enumerate(texts, start=1):
        try:
            crops.append(kaggle_to_crop(text, height, width))
        except RLEError as error:
            raise CellSegError(f"{where}, cell {number}: 'predicted' is malformed: {error}") from None
    return crops


def validate_submission(
    cells: Mapping[str, Sequence[str]],
    sizes: tuple[int, int] | Mapping[str, tuple[int, int]],
    ids: Iterable[str] | None = None,
) -> list[str]:
    """List what the competition would refuse in a submission, or score as wrong without a message.

    Args:
        cells: as :func:`read_submission` returns them.
        sizes: ``(height, width)`` in pixels, one for all images or by image id; the masks of an image without a known
            size are not checked.
        ids: ids of all images that must be there, for example those of ``sample_submission.csv``; None skips this
            check.

    Returns:
        One sentence for each problem, at most one of a kind for each cell; empty when all is well.
    """
    problems = []
    if ids is not None:
        expected = dict.fromkeys(ids)
        missing = [image for image in expected if image not in cells]
        unknown = [image for image in cells if image not in expected]
        if missing:
            problems.append(
                f"no row for {_images(missing)}: an image without a cell needs a row with empty 'predicted'"
            )
        if unknown:
            problems.append(f"rows for {_images(unknown)} that should not be there")
    for image, texts in cells.items():
        size = sizes.get(image) if isinstance(sizes, Mapping) else sizes
        if size is not None:
            problems += [f"image {image}{problem}" for problem in _image_problems(texts, *size)]
    return problems


def _image_problems(texts: Sequence[str], height: int, width: int) -> list[str]:
    problems, cleaned = [], []
    for number, text in enumerate(texts, start=1):
        try:
            runs = parse_kaggle_rle(text)
        except RLEError as error:
            problems.append(f", cell {number}: {error}")
            continue
        problems += [f", cell {number}: {name}" for name in run_problems(runs, height, width)]
        cleaned.append(clean_runs(runs, height, width))
    if cleaned:
        runs = np.concatenate(cleaned)
        contested = int(runs[:, 1].sum() - clean_runs(runs, height, width)[:, 1].sum())
        if contested:
            problems.append(f": cells overlap (contested pixels: {contested}), but no pixel may be given twice")
    return problems


def _images(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} image{'s' if len(names) > 1 else ''} ({shown})"
