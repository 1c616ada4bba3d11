"""Average precision and recall by COCO's and by LIVECell's protocol.

Computed by faster-coco-eval, which equals pycocotools and stays fast with thousands of detections per image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from cellseg_d2.datasets.coco_file import CocoFile, read_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json


@dataclass(frozen=True)
class Protocol:
    """What the protocols differ in.

    Attributes:
        max_detections: an image's best detections that count, for AR; AP and the AR of sizes use the last.
        small, medium: largest area of a small and of a medium-sized cell in px²; the bounds belong to both sides.
    """

    max_detections: tuple[int, ...]
    small: int
    medium: int


PROTOCOLS = {
    "coco": Protocol((1, 10, 100), 32**2, 96**2),
    # Edlund et al., LIVECell, Nature Methods 2021, and the evaluation script that its authors published.
    "livecell": Protocol((100, 500, 2000), 18**2, 31**2),
}
SIZES = {"": 0, "s": 1, "m": 2, "l": 3}
NO_LIMIT = 1e10


def evaluate_coco(
    ground_truth: CocoFile | Mapping | str | Path,
    results: Sequence[Mapping] | str | Path,
    protocol: str = "livecell",
    kinds: Sequence[str] = ("bbox", "segm"),
    image_ids: Sequence[int] | None = None,
) -> dict[str, dict[str, float]]:
    """Box and mask AP and AR of detections.

    Args:
        ground_truth: COCO JSON or its path, see :class:`cellseg_d2.datasets.coco_file.CocoFile`.
        results: COCO results or their path: dicts with ``image_id``, ``category_id``, ``score`` and ``segmentation``
            (compressed RLE) and, if the boxes are not those of the masks, ``bbox`` (x, y, width, height in pixels).
        protocol: ``"livecell"`` (the best 100, 500 and 2000 detections of an image; small to 324 px², large from
            961 px²) or ``"coco"`` (the best 1, 10 and 100; 1024 and 9216 px²).
        kinds: which of ``"bbox"`` and ``"segm"`` to compute.
        image_ids: numbers of the images to look at, by default all.

    Returns:
        For each kind, in percent: ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl`` and ``ARs``, ``ARm``, ``ARl``
        at the largest number of detections, ``AR100`` and so on for each number, and, with several categories,
        ``AP-<name>`` for each. A figure is 0 where nothing is detected, and NaN where there is nothing to find.

    Raises:
        CellSegError: a file cannot be read, or results and ground truth do not fit together.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}, choose one of {', '.join(PROTOCOLS)}")
    if isinstance(ground_truth, str | Path):
        ground_truth = read_coco(ground_truth)
    elif not isinstance(ground_truth, CocoFile):
        ground_truth = CocoFile(ground_truth, "the ground truth")
    results = read_json(results) if isinstance(results, str | Path) else results
    truth = _prepare_truth(ground_truth)
    _check_results(results, truth)
    scores = {}
    for kind in kinds:
        # Fresh dicts each time: the evaluation writes into them.
        coco = COCO({**truth, "annotations": [dict(annotation) for annotation in truth["annotations"]]})
        evaluation = COCOeval_faster(coco, coco.loadRes([_result(result, kind) for result in results]), iouType=kind)
        _set_protocol(evaluation, PROTOCOLS[protocol])
        if image_ids is not None:
            evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        names = {category["id"]: category["name"] for category in truth["categories"]}
        scores[kind] = _percentages(evaluation, names)
    return scores


def _prepare_truth(file: CocoFile) -> dict:
    """A copy in which every annotation has what the evaluation needs."""
    annotations = []
    # Renumbered, since a match with an annotation of id 0 would count as none.
    for number, (annotation, rle, _) in enumerate(file.masks(compressed=True), start=1):
        annotation = {"iscrowd": 0, **annotation, "id": number, "segmentation": rle}
        if "area" not in annotation or "bbox" not in annotation:
            annotation = {"area": float(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist(), **annotation}
        annotations.append(annotation)
    return {**file.content(), "images": [dict(image) for image in file.images.values()], "annotations": annotations}


def _check_results(results: Sequence[Mapping], truth: Mapping) -> None:
    if not isinstance(results, Sequence) or isinstance(results, str):
        raise CellSegError("the predictions are not COCO results: those are a list of detections")
    needed = {"image_id", "category_id", "score", "segmentation"}
    for number, result in enumerate(results):
        if not isinstance(result, Mapping) or not needed <= result.keys():
            lacking = ", ".join(sorted(needed - result.keys())) if isinstance(result, Mapping) else "everything"
            raise CellSegError(f"detection {number} of the predictions lacks {lacking}")
    for key, what in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in truth[what]}
        unknown = list(dict.fromkeys(result[key] for result in results if result[key] not in known))
        if unknown:
            raise CellSegError(
                f"the predictions name {what} that the ground truth lacks: {len(unknown)}, such as {key} {unknown[0]!r}"
            )


def _result(result: Mapping, kind: str) -> dict:
    """One detection with nothing but what ``kind`` needs: given a box, the area of a mask would be the box's."""
    own = {key: result[key] for key in ("image_id", "category_id", "score")}
    if kind == "segm":
        return {**own, "segmentation": result["segmentation"]}
    box = result["bbox"] if "bbox" in result else coco_mask.toBbox(result["segmentation"]).tolist()
    return {**own, "bbox": list(box)}


def _set_protocol(evaluation: COCOeval_faster, protocol: Protocol) -> None:
    evaluation.params.maxDets = list(protocol.max_detections)
    edges = [0, protocol.small, protocol.medium, NO_LIMIT]
    evaluation.params.areaRng = [[0, NO_LIMIT], *([low, high] for low, high in pairwise(edges))]
    evaluation.params.areaRngLbl = ["all", "small", "medium", "large"]


def _percentages(evaluation: COCOeval_faster, names: Mapping[int, str]) -> dict[str, float]:
    precision = evaluation.eval[
        "precision"
    ]  # (IoU thresholds, recall levels, categories, areas, numbers of detections)
    recall = evaluation.eval["recall"]  # (IoU thresholds, categories, areas, numbers of detections)
    thresholds = evaluation.params.iouThrs
    scores = {"AP": _mean(precision[:, :, :, 0, -1])}
    for threshold in (0.5, 0.75):
        at = int(np.abs(thresholds - threshold).argmin())
        scores[f"AP{threshold * 100:.0f}"] = _mean(precision[at, :, :, 0, -1])
    scores |= {f"AP{size}": _mean(precision[:, :, :, area, -1]) for size, area in SIZES.items() if size}
    numbers = evaluation.params.maxDets
    scores |= {f"AR{number}": _mean(recall[:, :, 0, index]) for index, number in enumerate(numbers)}
    scores |= {f"AR{size}": _mean(recall[:, :, area, -1]) for size, area in SIZES.items() if size}
    categories = evaluation.params.catIds
    if len(categories) > 1:
        scores |= {f"AP-{names[id_]}": _mean(precision[:, :, index, 0, -1]) for index, id_ in enumerate(categories)}
    return scores


def _mean(values: np.ndarray) -> float:
    """Mean in percent of what is defined: −1 marks what no cell of the ground truth falls into."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else float("nan")
