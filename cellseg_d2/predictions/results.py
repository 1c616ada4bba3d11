"""COCO results: a JSON list of detections, each with ``image_id``, ``category_id``, ``segmentation`` and ``score``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from cellseg_d2.datasets.coco_file import check_numbers
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.coco import to_rle
from cellseg_d2.masks.rle import RLEError


def read_results(
    path: str | Path, sizes: Mapping[str, tuple[int, int]], names: Mapping[int, str] | None = None
) -> dict[str, list[dict]]:
    """Read COCO results.

    Args:
        path: of the JSON.
        sizes: ``(height, width)`` in pixels by name of the image.
        names: of the images by number; an ``image_id`` that is not among them is itself the name.

    Returns:
        Detections by name of the image, both in the file's order. Those of an image in ``sizes`` have their
        ``segmentation`` as compressed COCO RLE, checked; those of others are as they are written.

    Raises:
        CellSegError: the file cannot be read, or a detection is malformed; the message says which.
    """
    results = read_json(path)
    if not isinstance(results, list):
        raise CellSegError(f"{path} is no COCO results: those are a list of detections")
    found: dict[str, list[dict]] = {}
    for index, result in enumerate(tqdm(results, desc=f"reading {Path(path).name}", leave=False, disable=None)):
        where = f"{path}, detection {index}"
        if not isinstance(result, Mapping) or not {"image_id", "segmentation", "score"} <= result.keys():
            raise CellSegError(f"{where}: it needs image_id, category_id, segmentation and score")
        image = result["image_id"]
        if not _is_whole(image, str) or not _is_whole(result.get("category_id", 1)):
            raise CellSegError(f"{where}: its image_id or its category_id is of a wrong kind")
        check_numbers(result, where)
        name = image if isinstance(image, str) else (names or {}).get(image, str(image))
        own = dict(result)
        if name in sizes:
            try:
                own["segmentation"] = to_rle(result["segmentation"], *sizes[name])[0]
            except RLEError as error:
                raise CellSegError(f"{where}, image {name}: the mask is malformed: {error}") from None
        found.setdefault(name, []).append(own)
    return found


def _is_whole(value: object, *others: type) -> bool:
    return isinstance(value, (int, *others)) and not isinstance(value, bool)
