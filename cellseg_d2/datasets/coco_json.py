"""Write annotated images as COCO JSON: compressed RLE, tight boxes, exact areas."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.io.atomic import atomic_path, atomic_set
from cellseg_d2.io.text import check_inside
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco


class EncodedCell(NamedTuple):
    """A cell as it is written: category id, COCO's compressed counts, ``(x, y, w, h)`` and area in pixels.

    ``score`` is that of a predicted cell, 0…1.
    """

    category_id: int
    counts: str
    bbox: tuple[int, int, int, int]
    area: int
    score: float | None = None


class EncodedImage(NamedTuple):
    """An image as it is written: its entry under ``images``, and its cells. Takes far less memory than masks.

    ``ignore`` is the region in which nobody annotated, written as an annotation marked ``iscrowd``.
    """

    entry: dict
    cells: list[EncodedCell]
    ignore: EncodedCell | None = None


def category_ids(names: Sequence[str]) -> dict[str, int]:
    """Category ids, from 1 on in the order of the names."""
    return {name: number for number, name in enumerate(names, start=1)}


def encode_record(record: ImageRecord, image_id: int, categories: Mapping[str, int]) -> EncodedImage:
    """Encode one image.

    Args:
        record: the image. Its cells must have pixels.
        image_id: its ``id`` in the JSON.
        categories: category ids by cell type, see :func:`category_ids`.
    """
    file_name = check_inside(record.file_name, f"image {record.id}")
    entry = {"id": image_id, "file_name": file_name, "height": record.height, "width": record.width}
    if record.cell_type is not None:
        entry["cell_type"] = record.cell_type
    if record.group is not None:
        entry["group"] = record.group
    entry["source_id"] = record.id
    if record.cut_from is not None:
        entry["cut_from"] = record.cut_from

    def encode(crop: MaskCrop, category: int, score: float | None = None) -> EncodedCell:
        crop = crop.tight()
        x0, y0, x1, y1 = crop.box
        counts = crop_to_coco(crop, record.height, record.width)["counts"]
        return EncodedCell(category, counts, (x0, y0, x1 - x0, y1 - y0), crop.area, score)

    cells = [encode(cell.crop, categories[cell.cell_type], cell.score) for cell in record.cells]
    # COCO has no annotation without a category; that of a region says nothing.
    ignore = encode(record.ignore, min(categories.values())) if record.ignore is not None else None
    return EncodedImage(entry, cells, ignore)


def write_coco_files(files: Mapping[Path, tuple[Iterable[EncodedImage], Mapping]], categories: Sequence[str]) -> None:
    """Write several COCO JSON files; when one fails, none is replaced.

    Args:
        files: images and ``info`` by the file's path. Annotations are numbered anew in each, from 1 on.
        categories: names; their ids count from 1 on.
    """
    with atomic_set():
        for path, (images, info) in files.items():
            with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
                _write(file, images, info, categories)


def relative_root(image_root: str | Path, json_folder: str | Path) -> str:
    """How a JSON names the folder of its images.

    Returns:
        The path relative to the JSON's folder if the images lie in that folder or beside it, so that both can be moved
        together; the absolute path otherwise.
    """
    image_root, json_folder = Path(image_root).resolve(), Path(json_folder).resolve()
    if image_root.is_relative_to(json_folder.parent) and json_folder.parent != Path(json_folder.anchor):
        return Path(os.path.relpath(image_root, json_folder)).as_posix()
    return image_root.as_posix()


def _write(file: TextIO, images: Iterable[EncodedImage], info: Mapping, categories: Sequence[str]) -> None:
    """Write one image or annotation per line, one after another, so that the text is never in memory as a whole."""
    images = list(images)
    head = {
        "info": dict(info),
        "licenses": [],
        "categories": [
            {"id": number, "name": name, "supercategory": "cell"} for name, number in category_ids(categories).items()
        ],
    }
    file.write(json.dumps(head)[:-1])
    file.write(',\n"images": [')
    for number, image in enumerate(images):
        file.write((",\n" if number else "\n") + json.dumps(image.entry))
    file.write('\n],\n"annotations": [')
    number = 0
    for image in images:
        size = [image.entry["height"], image.entry["width"]]
        for cell in (*image.cells, *([image.ignore] if image.ignore is not None else [])):
            annotation = {
                "id": number + 1,
                "image_id": image.entry["id"],
                "category_id": cell.category_id,
                "segmentation": {"size": size, "counts": cell.counts},
                "bbox": cell.bbox,
                "area": cell.area,
                "iscrowd": int(cell is image.ignore),
            }
            if cell.score is not None:
                annotation["score"] = cell.score
            file.write((",\n" if number else "\n") + json.dumps(annotation))
            number += 1
    file.write("\n]}\n")
