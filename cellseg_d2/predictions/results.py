"""COCO results: a JSON list of detections, each with ``image_id``, ``category_id``, ``segmentation`` and ``score``.

A COCO JSON whose annotations have scores, such as ``cellseg-d2 infer --save coco`` writes, is read as such a list too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from cellseg_d2.datasets.coco_file import CocoFile, check_numbers, id_key, is_cell, read_coco_or_json
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.masks.coco import to_rle
from cellseg_d2.masks.rle import RLEError


def read_results(
    path: str | Path,
    sizes: Mapping[str, tuple[int, int]],
    names: Mapping[int | str, str] | None = None,
    categories: Mapping[int, str] | None = None,
) -> dict[str, list[dict]]:
    """Read COCO results.

    Args:
        path: path of the JSON.
        sizes: ``(height, width)`` in pixels by name of the image.
        names: names of the images by id, as :attr:`cellseg_d2.datasets.coco_file.CocoFile.names_as_written` has them;
            an ``image_id`` that is not among them is itself the name.
        categories: names by id, by which a COCO JSON's own categories are translated; None are 1, 2 … in their order.

    Returns:
        Detections by name of the image, both in the file's order; a COCO JSON also names images without any. Those of
        an image in ``sizes`` have their ``segmentation`` as compressed COCO RLE, checked; those of others are as they
        are written.

    Raises:
        CellSegError: the file cannot be read, or a detection is malformed; the message says which.
    """
    results = read_coco_or_json(path, annotated=True)
    images: Iterable[str] = ()
    if isinstance(results, CocoFile):
        images, results = results.image_names().values(), _listed(results, categories)
    if not isinstance(results, list):
        raise CellSegError(f"{path} is not COCO results: those are a list of detections")
    found: dict[str, list[dict]] = {}
    for index, result in enumerate(track(results, f"reading {Path(path).name}", "cell")):
        where = f"{path}, detection {index}"
        if not isinstance(result, Mapping) or not {"image_id", "segmentation", "score"} <= result.keys():
            raise CellSegError(f"{where}: it needs image_id, category_id, segmentation and score")
        image = result["image_id"]
        if not _is_whole(image, str) or not _is_whole(result.get("category_id", 1)):
            raise CellSegError(f"{where}: its image_id or its category_id is of a wrong kind")
        check_numbers(result, where)
        key = id_key(image)
        is_name = isinstance(image, str) and image in sizes
        name = str(image) if is_name or key is None else (names or {}).get(key, str(image))
        own = dict(result)
        if name in sizes:
            try:
                own["segmentation"] = to_rle(result["segmentation"], *sizes[name])[0]
            except RLEError as error:
                raise CellSegError(f"{where}, image {name}: the mask is malformed: {error}") from None
        found.setdefault(name, []).append(own)
    for name in images:
        found.setdefault(name, [])
    return found


def _listed(file: CocoFile, categories: Mapping[int, str] | None) -> list[dict]:
    """The annotations of a COCO JSON as results, by the names of images; without scores they all have 1."""
    names = file.image_names()
    if categories is None:
        ids = {own: place for place, own in enumerate(file.categories, start=1)}
    else:
        known = {name: number for number, name in categories.items()}
        unknown = [name for name in file.categories.values() if name not in known]
        if unknown and len(categories) == len(file.categories) == 1:  # of one class each: whatever they are called
            known[unknown[0]] = next(iter(categories))
        # Of another category than all true ones, a cell is not a match for COCO's measure.
        beyond = max(categories, default=0) + 1
        ids = {own: known.get(name, beyond) for own, name in file.categories.items()}
    results = []
    for annotation, rle, _ in file.masks():
        if is_cell(annotation):
            score = annotation.get("score", 1.0)
            category = ids[annotation["category_id"]]
            image = names[annotation["image_id"]]
            results.append({"image_id": image, "category_id": category, "segmentation": rle, "score": score})
    return results


def _is_whole(value: object, *others: type) -> bool:
    return isinstance(value, (int, *others)) and not isinstance(value, bool)
