"""Annotated images as segmentations, which can be measured, drawn and saved in every format."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellseg_d2.datasets.coco_json import EncodedImage, category_ids, encode_record, relative_root, write_coco_files
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.readers import Source
from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize, read_pixel_size
from cellseg_d2.images.read import read_image
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.io.atomic import atomic_set
from cellseg_d2.io.file_names import check_distinct, folder_stem
from cellseg_d2.io.progress import track
from cellseg_d2.masks.crop import crop_to_kaggle
from cellseg_d2.masks.overlaps import resolve_overlaps
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.predictions.submission import write_submission
from cellseg_d2.visualization.style import Style

# Formats of which one file holds all images, and those with one number a pixel: of cells that overlap one has it.
ONE_FILE = ("coco", "submission")
DISJOINT = ("labels", "submission")


class Converted(NamedTuple):
    """What :func:`convert_annotations` has converted.

    Attributes:
        images, cells: how many.
        files: what was written.
        lost: number of cells without a pixel of their own, which the formats in :data:`DISJOINT` cannot hold.
        log: what was noticed.
    """

    images: int
    cells: int
    files: set[Path]
    lost: int
    log: FindingLog


def convert_annotations(
    path: str | Path,
    sources: Sequence[Source],
    places: Mapping[str, Path],
    *,
    clean: bool = False,
    name_images: bool = False,
    style: Style | None = None,
) -> Converted:
    """Write annotated cells in other formats; when one file fails, none is replaced.

    Args:
        path: of the annotations, for messages.
        sources: what :func:`cellseg_d2.datasets.annotations.open_annotations` has opened.
        places: by format: for those in :data:`ONE_FILE` the file, for all others of
            :data:`cellseg_d2.export.formats.FORMATS` the folder of the files, with sub-folders where images of
            several folders have one name.
        clean: drop or cut off what is wrong instead of refusing it.
        name_images: whether a COCO JSON names the folder of the images.
        style: of pictures.

    Raises:
        CellSegError: something is wrong in the annotations, two images have one name, or there is none.
    """
    hint = "; --clean drops or cuts off what it can"
    classes = list(dict.fromkeys(name for source in sources for name in source.categories))
    ids = category_ids(classes)
    log = FindingLog(clean)
    encoded: list[EncodedImage] = []
    rows: dict[str, list[str]] = {}
    ids_read: set[str] = set()
    files = {place for name, place in places.items() if name in ONE_FILE}
    cells, lost, judged, needs_disjoint = 0, 0, 0, bool(set(DISJOINT) & set(places))
    if set(places) - set(ONE_FILE):
        named = [id_.rpartition("/") for id_ in dict.fromkeys(id_ for source in sources for id_ in source.ids)]
        check_distinct([f"{name}.tif" for _, _, name in named], folders=[folder for folder, _, _ in named])
    with atomic_set():
        for source in sources:
            for record in track(source.records(log), "converting", total=len(source)):
                if any(finding.is_open for finding in log[judged:]):  # of this image: all anew would be quadratic
                    log.raise_open_errors(path, hint)
                judged = len(log)
                if record.id in ids_read:
                    raise CellSegError(f"{path} has several images called {record.id!r}; rename one")
                ids_read.add(record.id)
                file = source.images.root / record.file_name if source.images is not None else None
                image, size = (read_image(file), read_pixel_size(file)) if file and file.is_file() else (None, None)
                folder, _, name = record.id.rpartition("/")
                if needs_disjoint:
                    record, disjoint = with_disjoint(record)
                whole = replace(segmentation_of(record, classes, image, size), name=name)
                apart = replace(segmentation_of(disjoint, classes, image, size), name=name) if needs_disjoint else whole
                cells += len(whole)
                lost += len(whole) - len(apart)
                for format_, place in places.items():
                    if format_ not in ONE_FILE:
                        own = place / folder_stem(folder)
                        shown = replace(apart if format_ in DISJOINT else whole, style=style or Style())
                        files.update(shown.save(own, [format_]))
                if "submission" in places:
                    rows[record.id] = [crop_to_kaggle(crop, record.width) for crop in apart.crops]
                if "coco" in places:
                    encoded.append(encode_record(record, len(encoded) + 1, ids))
        log.raise_open_errors(path, hint)
        if not ids_read:
            raise CellSegError(f"{path} holds no image that could be converted")
        if "coco" in places:
            root = next((source.images.root for source in sources if source.images is not None), None)
            info = {"image_root": relative_root(root, places["coco"].parent)} if name_images and root else {}
            write_coco_files({places["coco"]: (encoded, info)}, classes)
        if "submission" in places:
            write_submission(places["submission"], rows)
    for finding in log:
        if finding.kind == "crowd":
            finding.action = _fate_of_crowds(places)
    return Converted(len(ids_read), cells, files, lost, log)


def _fate_of_crowds(formats: Collection[str]) -> str:
    """What becomes of regions marked ``iscrowd``, which a COCO JSON alone can hold."""
    others = [name for name in formats if name != "coco"]
    kept = ["kept in coco.json as a region to ignore"] if "coco" in formats else []
    return ", ".join([*kept, *([f"left out of {', '.join(others)}"] if others else [])])


def with_disjoint(record: ImageRecord) -> tuple[ImageRecord, ImageRecord]:
    """An image, and the same with every pixel of several cells given to the smallest of them.

    A cell that is left without a pixel is not in the second one, and comes last in the first one, so that all others
    have the same numbers in both.
    """
    crops = resolve_overlaps(
        [cell.crop.tight() for cell in record.cells], record.height, record.width, policy="smaller"
    )
    pairs = list(zip(record.cells, crops, strict=True))
    shown = [(cell, crop) for cell, crop in pairs if crop.area]
    order = [cell for cell, _ in shown] + [cell for cell, crop in pairs if not crop.area]
    return replace(record, cells=order), replace(record, cells=[replace(cell, crop=crop) for cell, crop in shown])


def segmentation_of(
    record: ImageRecord,
    class_names: Sequence[str],
    image: np.ndarray | None = None,
    pixel_size: PixelSize | None = None,
) -> Segmentation:
    """The annotated cells of an image, in their order; those without a score have 1.

    Args:
        record: the image.
        class_names: of all cells of the data set.
        image: grey values ``(H, W)``, where they are at hand.
        pixel_size: where it is known.
    """
    kept = [cell for cell in record.cells if cell.crop.area]
    classes = np.array([class_names.index(cell.cell_type) for cell in kept], dtype=np.int64)
    scores = np.array([1 if cell.score is None else cell.score for cell in kept], dtype=np.float32)
    cells = Cells(record.height, record.width, [cell.crop.tight() for cell in kept], scores, classes)
    return Segmentation(cells, class_names, image, pixel_size, record.id, file_name=record.file_name)
