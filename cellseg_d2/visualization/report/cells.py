"""Gather the cells of a report: predictions, and truth and images where they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.datasets.annotations import open_annotations
from cellseg_d2.datasets.find import ImageSizes, find_named
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import image_size
from cellseg_d2.io.progress import track
from cellseg_d2.io.text import is_json_list
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.masks.rle import RLEError, parse_kaggle_rle
from cellseg_d2.metrics.error_report import ErrorReport
from cellseg_d2.metrics.error_types import ImageErrors, find_errors
from cellseg_d2.predictions.submission import decode_cells, is_csv, read_submission
from cellseg_d2.predictions.truth import (
    Truth,
    choose_images,
    predicted_file,
    read_predictions,
    read_records,
    read_truth,
)


@dataclass(frozen=True, eq=False)
class ReportImage:
    """One image with T true and P predicted cells.

    Attributes:
        name: its id.
        path: path of its file; None if there is none.
        size: height and width in pixels; None if neither a file nor a truth contains it.
        cell_type: type of its true cells, if known.
        true: compressed COCO RLEs; None without a truth.
        predicted: compressed COCO RLEs; None where the size is unknown.
        predicted_areas: int64 ``(P,)``, in pixels.
        errors: the comparison; None without a truth.
    """

    name: str
    path: Path | None
    size: tuple[int, int] | None
    cell_type: str | None
    true: list[dict] | None
    predicted: list[dict] | None
    predicted_areas: np.ndarray
    errors: ImageErrors | None = None

    @property
    def true_count(self) -> int | None:
        """Number of true cells; None without a truth."""
        return None if self.true is None else len(self.true)

    @property
    def predicted_count(self) -> int:
        """Number of predicted cells."""
        return len(self.predicted_areas)


@dataclass(frozen=True, eq=False)
class ReportCells:
    """The images of a report.

    Attributes:
        images: the worst first; without a truth those with the most cells first.
        errors: errors of all images; None without a truth.
        predictions: the file, and when it was written.
        truth: the file; None without one.
        notes: sentences about what is missing or not as it should be.
    """

    images: list[ReportImage]
    errors: ErrorReport | None
    predictions: tuple[Path, datetime]
    truth: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def cell_types(self) -> list[str]:
        """Names of the cell types, in alphabetical order."""
        return sorted({image.cell_type for image in self.images if image.cell_type is not None})


def gather_cells(
    predictions: str | Path,
    truth: str | Path | None = None,
    images: Sequence[str | Path] = (),
    *,
    score_threshold: float | None = None,
    overlaps: str | None = None,
    only_predicted: bool = False,
) -> ReportCells:
    """Read predictions, and compare them with the truth if there is one.

    Args:
        predictions: a folder with ``submission.csv``, a submission (also ``.gz``), or COCO results.
        truth: ``train.csv`` or a COCO JSON.
        images: files, folders, also with sub-folders, or globs. By default those that a COCO truth of
            ``cellseg-d2 convert-to-coco`` names.
        score_threshold, overlaps: see :func:`cellseg_d2.predictions.truth.read_predictions`.
        only_predicted: leave out the true images that have no predictions; else these count as predicted empty.

    Raises:
        CellSegError: a file is missing or malformed, or the files do not belong together.
    """
    path = predicted_file(predictions)
    _check_exists(path)
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    files = find_named(images) if images else {}
    if truth is None:
        entries, notes = _without_truth(path, files), ["No ground truth was given, so nothing is scored."]
        errors = None
    else:
        known = read_truth(truth, ImageSizes(files))
        files = files or _files_of_coco(known)
        entries, notes = _with_truth(path, known, files, score_threshold, overlaps, only_predicted)
        errors = ErrorReport({image.name: image.errors for image in entries}, known.cell_types)
    for image in entries:
        _check_size(image)
    missing = sum(image.path is None for image in entries)
    if missing == len(entries):
        notes.append("No image files were given, so there are no pictures.")
    elif missing:
        notes.append(f"Images without a file, of which there is no picture: {missing} of {len(entries)}.")
    if errors is not None:
        order = {name: place for place, name in enumerate(errors.worst_first)}
        entries.sort(key=lambda image: order[image.name])
    else:
        entries.sort(key=lambda image: (-image.predicted_count, image.name))
    return ReportCells(entries, errors, (path, written), None if truth is None else Path(truth), notes)


def _check_exists(path: Path) -> None:
    if path.is_dir():
        try:
            open_annotations(path)
        except CellSegError as error:
            raise CellSegError(
                f"{path} holds no submission.csv, nor other cells ({error}): name the output folder of "
                "cellseg-d2 infer, or a file"
            ) from None
    elif not path.is_file():
        raise CellSegError(f"{path} does not exist")


def _with_truth(
    path: Path,
    truth: Truth,
    files: Mapping[str, Path],
    score_threshold: float | None,
    overlaps: str | None,
    only_predicted: bool,
) -> tuple[list[ReportImage], list[str]]:
    predictions = read_predictions(path, truth, score_threshold, overlaps)
    names = choose_images(truth, predictions.masks, only_predicted=only_predicted)
    entries = []
    for name in track(names, "comparing"):
        entry, masks = truth.images[name], predictions.masks.get(name, [])
        errors = find_errors(masks, entry.masks)
        size = (entry.height, entry.width)
        areas = errors.predicted_areas
        entries.append(
            ReportImage(name, files.get(name), size, entry.cell_type, entry.masks, masks, areas, errors=errors)
        )
    notes = [_sentence(warning) for warning in truth.warnings + predictions.warnings]
    unpredicted = sum(name not in predictions.masks for name in names)
    if unpredicted:
        notes.append(f"Images without a row in the predictions, which count as predicted empty: {unpredicted}.")
    return entries, notes


def _without_truth(path: Path, files: Mapping[str, Path]) -> list[ReportImage]:
    if path.suffix.lower() == ".json" and is_json_list(path):
        raise CellSegError(f"{path}: COCO results name their images by number, so they need the ground truth, too")
    entries = []
    if not is_csv(path):
        for record in read_records(path, ImageSizes(files)):
            size = (record.height, record.width)
            masks = [crop_to_coco(cell.crop, *size) for cell in record.cells]
            areas = [cell.crop.area for cell in record.cells]
            entries.append(
                ReportImage(record.id, files.get(record.id), size, None, None, masks, np.array(areas, np.int64))
            )
        if not entries:
            raise CellSegError(f"{path} has no image, so there is nothing to report")
        return entries
    for name, texts in read_submission(path).items():
        file = files.get(name)
        size = image_size(file) if file else None
        if size is None:
            areas, masks = [_area(text, f"{path}, image {name}") for text in texts], None
        else:
            masks = [crop_to_coco(crop, *size) for crop in decode_cells(texts, *size, f"{path}, image {name}")]
            areas = [int(coco_mask.area(mask)) for mask in masks]
        entries.append(ReportImage(name, file, size, None, None, masks, np.array(areas, np.int64)))
    if not entries:
        raise CellSegError(f"{path} has no row, so there is nothing to report")
    return entries


def _area(text: str, where: str) -> int:
    try:
        return int(parse_kaggle_rle(text)[:, 1].sum())
    except RLEError as error:
        raise CellSegError(f"{where}: 'predicted' is malformed: {error}") from None


def _files_of_coco(truth: Truth) -> dict[str, Path]:
    """The image files of a converted dataset, as far as they are there."""
    return {truth.names[number]: file for number, file in truth.files.items() if file.is_file()}


def _check_size(image: ReportImage) -> None:
    if image.path is None or image.true is None:
        return
    height, width = image_size(image.path)
    if (height, width) != image.size:
        raise CellSegError(
            f"{image.path} has {width} × {height} pixels, but its masks are for {image.size[1]} × {image.size[0]}: "
            "do the images belong to the ground truth?"
        )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."
