"""Read predictions from files as detections: submissions, COCO results, saved detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cellseg_d2.datasets.coco_file import CocoFile, read_coco, read_coco_or_json
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.saved import load_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import is_json_list
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop
from cellseg_d2.predictions.results import read_results
from cellseg_d2.predictions.submission import decode_cells, is_csv, read_submission


class Predicted(NamedTuple):
    """Predictions from a file.

    Attributes:
        images: detections by image name.
        class_names: names of their classes; None if the file does not contain them, and all are of class 0.
        scored: whether the file contains scores; otherwise all are 1.
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
    """Read the predictions of images from a file, whose suffix gives the format.

    Args:
        path: a submission (``.csv``, ``.csv.gz``), COCO results (``.json``) or saved detections (``.npz``, see
            :mod:`cellseg_d2.detections.saved`).
        sizes: ``(height, width)`` in pixels by image name; predictions of other images are left out.
        categories: names by which a list of COCO results means the ids 1, 2 …; a COCO JSON names its own.
        numbered: the COCO JSON that COCO results' ``image_id`` refers to; None if they are names.

    Raises:
        CellSegError: a file cannot be read, a mask is malformed, or no prediction is of one of the images.
    """
    kind = Path(path).name.lower()
    if is_csv(path):
        predicted = Predicted(_from_submission(path, sizes), None, False)
    elif kind.endswith(".json"):
        # A list of results, which may be large, is read once only; a COCO JSON is kept between the two readings.
        is_list = Path(path).is_file() and is_json_list(path)
        content = None if is_list else read_coco_or_json(path, annotated=True)
        names = list(content.categories.values()) if isinstance(content, CocoFile) else list(categories)
        predicted = Predicted(_from_results(path, sizes, names, numbered), names, True)
    elif kind.endswith(".npz"):
        raw = load_detections(path)
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
            cells = decode_cells(texts, *sizes[name], f"{path}, image {name}")
            found[name] = _binary_detections([(crop, 1.0, 0) for crop in cells], *sizes[name])
    return found


def _from_results(
    path: str | Path, sizes: Mapping[str, tuple[int, int]], categories: Sequence[str], numbered: str | Path | None
) -> dict[str, Detections]:
    names = read_coco(numbered, annotated=False).names_as_written if numbered else None
    found = {}
    for name, results in read_results(path, sizes, names).items():
        if name not in sizes:
            continue
        cells = []
        for result in results:
            category = result.get("category_id", 0)
            if not 1 <= category <= len(categories):
                raise CellSegError(f"{path}, image {name}: no category {category} among {', '.join(categories)}")
            cells.append((coco_to_crop(result["segmentation"]), float(result["score"]), category - 1))
        found[name] = _binary_detections(cells, *sizes[name])
    return found


def no_detections(height: int, width: int) -> Detections:
    """Nothing found in an image."""
    return _binary_detections([], height, width)


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
