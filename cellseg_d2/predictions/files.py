"""Predictions that others left in files, as detections: submissions, COCO results, saved raw detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.raw import load_raw
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.find import coco_images
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.coco import to_rle
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop, kaggle_to_crop
from cellseg_d2.masks.rle import RLEError
from cellseg_d2.predictions.submission import read_submission


class Predicted(NamedTuple):
    """Predictions from a file.

    Attributes:
        images: detections by image name.
        class_names: of their classes; None if the file does not tell, and all are of class 0.
        scored: whether it tells the scores; without, all are 1.
    """

    images: dict[str, Detections]
    class_names: list[str] | None
    scored: bool


def read_detections(
    path: str | Path,
    sizes: Mapping[str, tuple[int, int]],
    categories: Sequence[str],
    numbered: str | Path | None = None,
) -> Predicted:
    """Predictions of images from a file, told apart by its name.

    Args:
        path: a submission (``.csv``, ``.csv.gz``), COCO results (``.json``) or saved detections (``.npz``, see
            :mod:`cellseg_d2.detections.raw`).
        sizes: ``(height, width)`` in pixels by image name; predictions of other images are left away.
        categories: names by which COCO results mean the ids 1, 2 …
        numbered: the COCO JSON that COCO results' ``image_id`` refers to; None if they are names.

    Raises:
        CellSegError: a file cannot be read, a mask is malformed, or no prediction is of one of the images.
    """
    kind = Path(path).name.lower()
    if kind.endswith((".csv", ".csv.gz")):
        predicted = Predicted(_from_submission(path, sizes), None, False)
    elif kind.endswith(".json"):
        predicted = Predicted(_from_results(path, sizes, categories, numbered), list(categories), True)
    elif kind.endswith(".npz"):
        raw = load_raw(path)
        predicted = Predicted({name: raw.images[name] for name in sizes if name in raw.images}, raw.class_names, True)
    else:
        raise CellSegError(f"{path} is neither a submission (.csv), nor COCO results (.json), nor detections (.npz)")
    if not predicted.images:
        hint = "; COCO results with numbers for images need --results-for" if kind.endswith(".json") else ""
        raise CellSegError(f"{path} predicts none of the images, such as {next(iter(sizes), 'none')!r}{hint}")
    for name, own in predicted.images.items():
        if (own.height, own.width) != sizes[name]:
            raise CellSegError(
                f"{path}: image {name} was {own.height} × {own.width} pixels (height × width), but the file given is "
                f"{sizes[name][0]} × {sizes[name][1]}"
            )
    return predicted


def _from_submission(path: str | Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Detections]:
    found = {}
    for name, texts in read_submission(path).items():
        if name in sizes:
            cells = [_checked(f"{path}, image {name}", kaggle_to_crop, text, *sizes[name]) for text in texts]
            found[name] = _binary_detections([(crop, 1.0, 0) for crop in cells], *sizes[name])
    return found


def _from_results(
    path: str | Path, sizes: Mapping[str, tuple[int, int]], categories: Sequence[str], numbered: str | Path | None
) -> dict[str, Detections]:
    names = {number: file.stem for number, file in coco_images(numbered).items()} if numbered else {}
    results = read_json(path)
    if not isinstance(results, list):
        raise CellSegError(f"{path} is no COCO results: those are a list of detections")
    found: dict[str, list[tuple[MaskCrop, float, int]]] = defaultdict(list)
    for index, result in enumerate(tqdm(results, desc=f"reading {Path(path).name}", leave=False, disable=None)):
        where = f"{path}, detection {index}"
        try:
            name = names.get(result["image_id"], str(result["image_id"]))
            score, category = float(result["score"]), int(result["category_id"]) - 1
            segmentation = result["segmentation"]
        except (KeyError, TypeError, ValueError) as error:
            raise CellSegError(f"{where} is malformed: {type(error).__name__} {error}") from None
        if name not in sizes:
            continue
        if not 0 <= category < len(categories):
            raise CellSegError(f"{where}: there is no category {category + 1} among {', '.join(categories)}")
        found[name].append((_checked(where, _coco_crop, segmentation, *sizes[name]), score, category))
    return {name: _binary_detections(cells, *sizes[name]) for name, cells in found.items()}


def no_detections(height: int, width: int) -> Detections:
    """Nothing found in an image."""
    return _binary_detections([], height, width)


def _coco_crop(segmentation: object, height: int, width: int) -> MaskCrop:
    return coco_to_crop(to_rle(segmentation, height, width)[0])


def _checked(where: str, decode: Callable[..., MaskCrop], *args: object) -> MaskCrop:
    try:
        return decode(*args)
    except (RLEError, TypeError, ValueError, AttributeError) as error:
        raise CellSegError(f"{where}: a mask is malformed: {error}") from None


def _binary_detections(cells: Sequence[tuple[MaskCrop, float, int]], height: int, width: int) -> Detections:
    crops = [crop for crop, _, _ in cells]
    return Detections(
        height,
        width,
        np.array([crop.box for crop in crops], dtype=np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in cells], dtype=np.float32),
        np.array([category for _, _, category in cells], dtype=np.int64),
        crops,
    )
