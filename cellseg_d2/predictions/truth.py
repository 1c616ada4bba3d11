"""Read ground truth and predictions in any format as masks by image.

Ground truth is the competition's ``train.csv`` or a COCO JSON, predictions are a submission or COCO results. Images are
matched by name: the column ``id``, or the stem of COCO's ``file_name``. Masks become COCO RLE.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pycocotools import mask as coco_mask

from cellseg_d2.datasets.annotations import format_of, open_annotations
from cellseg_d2.datasets.coco_file import CocoFile, is_cell, read_coco, read_coco_or_json
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.readers import ReaderOptions, Source
from cellseg_d2.datasets.records import ImageRecord, main_type
from cellseg_d2.datasets.sartorius import SartoriusCsv
from cellseg_d2.datasets.shapes import DrawnSource
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.io.text import is_json_list
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop, crop_to_coco
from cellseg_d2.masks.ignore import judged
from cellseg_d2.masks.overlaps import resolve_overlaps
from cellseg_d2.predictions.results import read_results
from cellseg_d2.predictions.submission import decode_cells, is_csv, read_submission, validate_submission

Sizes = Mapping[str, tuple[int, int]]


@dataclass(eq=False)
class TrueImage:
    """The annotated cells of one image.

    Attributes:
        height, width: in pixels.
        masks: compressed COCO RLEs.
        cell_type: type of most of its cells; None if there is none, or if the file names no types.
        types: types of the cells, in the order of ``masks``.
        ignore: where nobody annotated, as one compressed COCO RLE: predictions there are not judged.
    """

    height: int
    width: int
    masks: list[dict] = field(default_factory=list)
    cell_type: str | None = None
    types: list[str] = field(default_factory=list)
    ignore: dict | None = None


@dataclass(frozen=True, eq=False)
class Truth:
    """A ground truth.

    Attributes:
        images: by name.
        coco: the COCO JSON that was read, with its masks as compressed RLEs; None for a CSV.
        names: names of the images by their number in the COCO JSON, see
            :class:`cellseg_d2.datasets.coco_file.CocoFile`.
        warnings: sentences about what was left out.
        files: files of the images by their number in the COCO JSON, whether they exist or not.
        ids: names of the images by what the COCO JSON itself calls them.
    """

    images: dict[str, TrueImage]
    coco: dict | None = None
    names: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    files: dict[int, Path] = field(default_factory=dict)
    ids: dict[int | str, str] = field(default_factory=dict)

    @property
    def cell_types(self) -> dict[str, str]:
        """Cell type by name, of the images that have one."""
        return {name: image.cell_type for name, image in self.images.items() if image.cell_type is not None}

    @property
    def is_mixed(self) -> bool:
        """Whether an image holds cells of several types."""
        return any(len(set(image.types)) > 1 for image in self.images.values())


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted cells of the images of a :class:`Truth`.

    Attributes:
        masks: compressed COCO RLEs by image name, as they are scored; an image without a key was not predicted.
        results: COCO results, below the threshold too, with the truth's numbers of images and masks as compressed RLEs;
            None for a submission.
        warnings: sentences about what is not as it should be.
        types: types of the cells by image name, in the order of ``masks``; None for a submission, which does not
            contain them.
    """

    masks: dict[str, list[dict]]
    results: list[dict] | None
    warnings: list[str]
    types: dict[str, list[str]] | None = None


def read_truth(path: str | Path, sizes: Sizes | None = None) -> Truth:
    """Read ``train.csv`` (also ``.gz``), a COCO JSON, or annotations of any other format, such as a folder of label
    images, see :mod:`cellseg_d2.datasets.annotations`.

    Args:
        path: path of the file or folder.
        sizes: ``(height, width)`` in pixels by image name, for formats that do not contain them, such as GeoJSON.

    Raises:
        CellSegError: the file cannot be read, or a mask in it is malformed.
    """
    if is_csv(path):
        return _truth_from_csv(path)
    if Path(path).is_file() and format_of(path) == "coco":
        return _truth_from_coco(path)
    return _truth_from_annotations(path, sizes)


def read_predictions(
    path: str | Path, truth: Truth, score_threshold: float | None = None, overlaps: str | None = None
) -> Predictions:
    """Read a submission (also ``.gz``), COCO results, or cells in any format of annotations, such as a folder of label
    images, or what ``cellseg-d2 infer`` has written.

    Args:
        path: path of the file or folder.
        truth: the truth of the predicted images. Predictions for other images are left out, with a warning, and those
            in regions to ignore without one.
        score_threshold: predictions need at least this score, where they have one. None is 0.5 for COCO results, which
            are detections to choose from, and takes all cells of other files.
        overlaps: ``"resolve"`` gives every contested pixel to the cell with the higher score, in a submission to the
            earlier one; ``"keep"`` scores the masks as they stand. None resolves COCO results and keeps all others.

    Raises:
        CellSegError: the file cannot be read, a mask in it is malformed, or not one of its images is in the truth.
    """
    found = _read_predictions(predicted_file(path), truth, score_threshold, overlaps)
    for name, masks in found.masks.items():
        counted = judged(masks, truth.images[name].ignore)
        found.masks[name] = [masks[i] for i in counted]
        if found.types is not None:
            found.types[name] = [found.types[name][i] for i in counted]
    return found


def predicted_file(path: str | Path) -> Path:
    """The submission or the COCO JSON in a folder of ``cellseg-d2 infer``, if it has one; else ``path`` itself."""
    path = Path(path)
    names = ("submission.csv", "submission.csv.gz", "coco.json")
    return next((path / name for name in names if (path / name).is_file()), path)


def _read_predictions(path: Path, truth: Truth, score_threshold: float | None, overlaps: str | None) -> Predictions:
    least = -math.inf if score_threshold is None else score_threshold
    if is_csv(path):
        return _predictions_from_submission(path, truth, overlaps or "keep")
    if path.suffix.lower() == ".json" and path.is_file():
        content = [] if is_json_list(path) else read_coco_or_json(path)
        if isinstance(content, CocoFile):  # cells, not detections of which some are chosen
            return _predictions_from_results(path, truth, least, overlaps or "keep")
        if not isinstance(content, Mapping) or not {"shapes", "features", "_via_img_metadata"} & content.keys():
            chosen = 0.5 if score_threshold is None else score_threshold
            return _predictions_from_results(path, truth, chosen, overlaps or "resolve")
    return _predictions_from_annotations(path, truth, least, overlaps or "keep")


def choose_images(
    truth: Truth,
    predicted: Collection[str],
    ids: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    only_predicted: bool = False,
) -> list[str]:
    """Names of the images to score, in the truth's order.

    Args:
        truth: all images.
        predicted: names of the images that have predictions.
        ids: only these; None for all.
        exclude: not these.
        only_predicted: only images in ``predicted``; else the others count as predicted without cells.

    Raises:
        CellSegError: ``ids`` or ``exclude`` names an image that the truth lacks, or no image is left.
    """
    exclude, ids = set(exclude), None if ids is None else set(ids)
    unknown = sorted((exclude | (ids or set())) - truth.images.keys())
    if unknown:
        raise CellSegError(
            f"images to choose or exclude that the ground truth lacks: {len(unknown)}, such as {unknown[0]}"
        )
    chosen = [
        name
        for name in truth.images
        if name not in exclude and (ids is None or name in ids) and (not only_predicted or name in predicted)
    ]
    if not chosen:
        raise CellSegError("no image is left to score after choosing and excluding images")
    return chosen


def read_ids(path: str | Path) -> list[str]:
    """Image names from a text file, one a line, or from the first column of a CSV whose header begins with ``id``."""
    try:
        rows = list(csv.reader(Path(path).read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CellSegError(f"{path} cannot be read as a list of image ids: {error}") from None
    names = [row[0].strip() for row in rows if row]
    return [name for name in dict.fromkeys(names) if name not in ("", "id")]


def _progress(items: Iterable, path: str | Path, total: int | None = None) -> Iterable:
    return track(items, f"reading {Path(path).name}", total=total)


def _truth_from_csv(path: str | Path) -> Truth:
    # Whatever types the file names are its types; none at all is no reason not to score it.
    table, log = SartoriusCsv(path, cell_types=None), FindingLog()
    images = {}
    for record in _progress(table.records(log), path, len(table)):
        masks = [crop_to_coco(cell.crop, record.height, record.width) for cell in record.cells]
        types = [cell.cell_type for cell in record.cells]
        images[record.id] = TrueImage(record.height, record.width, masks, record.cell_type or None, types)
    # To score, an image may be without cells; a row with an empty annotation says so.
    log[:] = [finding for finding in log if finding.kind != "empty mask"]
    log.raise_open_errors(path)
    return Truth(images)


def _truth_from_coco(path: str | Path) -> Truth:
    file = read_coco(path)
    names = file.names
    images = {name: TrueImage(*file.size(number)) for number, name in names.items()}
    annotations = []
    crowds = defaultdict(list)
    for annotation, rle, _ in _progress(file.masks(), path, len(file.annotations)):
        annotations.append({**annotation, "segmentation": rle})
        if not is_cell(annotation):
            crowds[names[annotation["image_id"]]].append(rle)
            continue
        name = names[annotation["image_id"]]
        images[name].masks.append(rle)
        images[name].types.append(file.categories[annotation["category_id"]])
    for image in images.values():
        image.cell_type = main_type(image.types)
    for name, regions in crowds.items():
        images[name].ignore = coco_mask.merge(regions)
    count = sum(map(len, crowds.values()))
    warnings = [f"regions marked iscrowd, in which no prediction is judged: {count}"] if crowds else []
    coco = {**file.content(), "annotations": annotations}
    return Truth(images, coco, names, warnings, file.image_paths(), file.names_as_written)


def _truth_from_annotations(path: str | Path, sizes: Sizes | None) -> Truth:
    images: dict[str, TrueImage] = {}
    # A number that must be the background is refused; a cell that is predicted may cover most of an image.
    for record in _distinct(path, _records(path, open_annotations(path, ReaderOptions(), sizes))):
        masks = [crop_to_coco(cell.crop, record.height, record.width) for cell in record.cells]
        types = [cell.cell_type for cell in record.cells]
        images[record.id] = TrueImage(record.height, record.width, masks, record.cell_type, types)
    return Truth(images)


def _distinct(path: str | Path, records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
    seen = set()
    for record in records:
        if record.id in seen:
            raise CellSegError(f"{path}: several images are called {record.id}")
        seen.add(record.id)
        yield record


def _predictions_from_annotations(path: str | Path, truth: Truth, score_threshold: float, overlaps: str) -> Predictions:
    sizes = {name: (image.height, image.width) for name, image in truth.images.items()}
    sources = _open_predicted(path, sizes)
    others: set[str] = set()
    for source in sources:
        if isinstance(source, DrawnSource):  # of whose size nothing may be known
            source.drop |= {name for name in source.ids if name not in sizes}
            others |= source.drop
    found = {record.id: record for record in _distinct(path, _records(path, sources))}
    known, warnings = _known_images(path, {**dict.fromkeys(others), **found}, truth)
    masks, types = {}, {}
    for name in _progress(known, path):
        record = found[name]
        if (record.height, record.width) != sizes[name]:
            raise CellSegError(
                f"{path}: image {name} has {record.width} × {record.height} pixels, but the ground truth is for "
                f"{sizes[name][1]} × {sizes[name][0]}"
            )
        scores = [1.0 if cell.score is None else cell.score for cell in record.cells]
        chosen = [i for i, score in enumerate(scores) if score >= score_threshold]
        crops = [record.cells[i].crop for i in chosen]
        masks[name], kept = _scored(crops, truth.images[name], overlaps, [scores[i] for i in chosen])
        types[name] = [record.cells[chosen[i]].cell_type for i in kept]
    return Predictions(masks, None, warnings, types)


def read_records(path: str | Path, sizes: Sizes | None = None) -> Iterator[ImageRecord]:
    """All images of predicted cells in any format of annotations, which must be right; ``sizes`` as of
    :func:`read_truth`.
    """
    return _records(path, _open_predicted(path, sizes))


def _open_predicted(path: str | Path, sizes: Sizes | None) -> list[Source]:
    return open_annotations(path, ReaderOptions(background=0), sizes)


def _records(path: str | Path, sources: Iterable[Source]) -> Iterator[ImageRecord]:
    for source in sources:
        log = FindingLog()
        yield from source.records(log)
        log.raise_open_errors(path, "; cellseg-d2 convert has the options that are named, and --clean")


def _predictions_from_submission(path: str | Path, truth: Truth, overlaps: str) -> Predictions:
    cells = read_submission(path)
    known, warnings = _known_images(path, cells, truth)
    sizes = {name: (truth.images[name].height, truth.images[name].width) for name in known}
    masks = {}
    for name in _progress(known, path):
        crops = decode_cells(cells[name], *sizes[name], f"{path}, image {name}")
        masks[name], _ = _scored(crops, truth.images[name], overlaps)
    problems = validate_submission({name: cells[name] for name in known}, sizes)
    if problems and overlaps == "keep":
        more = f" (problems in all: {len(problems)})" if len(problems) > 1 else ""
        warnings.append(f"not a valid submission, scored as it stands: {problems[0]}{more}")
    return Predictions(masks, None, warnings)


def _predictions_from_results(path: str | Path, truth: Truth, score_threshold: float, overlaps: str) -> Predictions:
    numbers = {name: number for number, name in truth.names.items()}
    sizes = {name: (image.height, image.width) for name, image in truth.images.items()}
    categories = {category["id"]: category["name"] for category in (truth.coco or {}).get("categories", ())}
    by_image = read_results(path, sizes, truth.ids, categories or None)
    known, warnings = _known_images(path, by_image, truth)
    masks, types = {}, {}
    for name in _progress(known, path):
        for result in by_image[name]:
            result["image_id"] = numbers.get(name, result["image_id"])
        chosen = [result for result in by_image[name] if result["score"] >= score_threshold]
        crops = [coco_to_crop(result["segmentation"]) for result in chosen]
        masks[name], kept = _scored(crops, truth.images[name], overlaps, [result["score"] for result in chosen])
        types[name] = [categories.get(chosen[i].get("category_id"), "other") for i in kept]
    results = [result for name in known for result in by_image[name]]
    return Predictions(masks, results, warnings, types if categories else None)


def _known_images(path: str | Path, predicted: Mapping, truth: Truth) -> tuple[list[str], list[str]]:
    known = [name for name in predicted if name in truth.images]
    others = len(predicted) - len(known)
    if others and not known:
        examples = f"{next(iter(predicted))!r} and {next(iter(truth.images), 'nothing')!r}"
        raise CellSegError(f"{path}: not one of its images is in the ground truth (for example {examples})")
    return known, [f"predicted images that the ground truth lacks are left out: {others}"] if others else []


def _scored(
    crops: Sequence[MaskCrop], image: TrueImage, overlaps: str, scores: Sequence[float] | None = None
) -> tuple[list[dict], list[int]]:
    """RLEs of the crops that have pixels, after overlaps are resolved, and which crops these are."""
    if overlaps == "resolve":
        crops = resolve_overlaps(crops, image.height, image.width, scores=scores)
    kept = [i for i, crop in enumerate(crops) if crop.area]
    return [crop_to_coco(crops[i], image.height, image.width) for i in kept], kept
