"""Which image to correct next: the one of which the model is least sure.

A model that is sure finds the same cells in an image however it is turned. Where it does not, a correction teaches most
(query by committee: Seung, Opper & Sompolinsky, COLT 1992; the committee is one model and several views of the image).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from cellseg_d2.correction.project import Project
from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.inference.tta import View
from cellseg_d2.io.atomic import write_json_atomic
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.metrics.competition import score_image

# As it is, and mirrored and turned: two views tell nearly as much as eight, in a quarter of the time.
VIEWS = (View(), View(mirrored=True, turns=1))
REMEMBERED = "disagreement.json"


def disagreement(segmenter: Segmenter, image: np.ndarray, views: Sequence[View] = VIEWS) -> float:
    """How differently a model sees an image and its turned or mirrored copies.

    Args:
        segmenter: the model.
        image: grey ``(H, W)`` of any numeric type.
        views: at least two.

    Returns:
        1 minus the competition score of the cells of one view against those of another, the mean over all pairs: 0
        where all views show the same cells, or none, and 1 where no cell of one is found in another.
    """
    if len(views) < 2:
        raise CellSegError("disagreement needs at least two views of an image")
    found = []
    for view in views:
        cells = segmenter.segment(view.apply(image)).cells
        boxes = np.array([crop.box for crop in cells.crops], dtype=np.float32).reshape(-1, 4)
        seen = Detections(cells.height, cells.width, boxes, cells.scores, cells.classes, list(cells.crops))
        back = view.restore(seen)
        found.append([crop_to_coco(crop, back.height, back.width) for crop in back.masks])
    return float(np.mean([1 - score_image(one, other).score for one, other in combinations(found, 2)]))


def rank_images(project: Project, segmenter: Segmenter, names: Iterable[str] | None = None) -> dict[str, float]:
    """:func:`disagreement` by image, the least sure first; remembered in the project as long as the model is the same.

    Args:
        project: whose images are looked at.
        segmenter: the model.
        names: of the images; by default those that were not corrected yet.
    """
    names = list(project.uncorrected if names is None else names)
    path, key = project.folder / REMEMBERED, str(sorted(segmenter.settings().items(), key=str))
    known = _remembered(path, key)
    for name in names:
        if name not in known:
            known[name] = disagreement(segmenter, read_image(project.image_path(name)))
            write_json_atomic(path, {"model": key, "images": known})
    return dict(sorted(((name, known[name]) for name in names), key=lambda item: (-item[1], item[0])))


def _remembered(path: Path, key: str) -> dict[str, float]:
    content = read_json(path) if path.is_file() else {}
    return dict(content["images"]) if content.get("model") == key else {}
