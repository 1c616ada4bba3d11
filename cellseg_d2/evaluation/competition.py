"""The competition's metric as a Detectron2 evaluator."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from pycocotools import mask as coco_mask

from cellseg_d2.data.catalog import ignored_regions
from cellseg_d2.data.categories import map_categories
from cellseg_d2.datasets.coco_file import is_cell, read_coco
from cellseg_d2.datasets.names import distinct_names, key_of
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.instances import to_detections
from cellseg_d2.detections.saved import FILE_NAME as DETECTIONS_FILE_NAME
from cellseg_d2.detections.saved import save_detections
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.io.atomic import write_json_atomic
from cellseg_d2.masks.coco import rles_of
from cellseg_d2.masks.crop import crop_to_coco, crop_to_kaggle
from cellseg_d2.masks.ignore import judged
from cellseg_d2.metrics.competition import ImageScore, score_image, score_types, summarize
from cellseg_d2.postprocess.params import FILE_NAME as PARAMS_FILE_NAME
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from cellseg_d2.predictions.submission import write_submission

logger = logging.getLogger(__name__)


class CompetitionEvaluator(DatasetEvaluator):
    """Scores the cells that would be submitted: after thresholds and overlap removal.

    What is predicted in a region in which nobody annotated does not count. Where images hold several
    types of cells, each type's score compares its own cells only.

    Each process scores its own images; only the scores and the submission's rows are gathered. Takes the outputs of
    :class:`cellseg_d2.inference.evaluated.EvaluatedSegmenter`, which hold the cells, and those of any Detectron2 R-CNN
    with masks, pasted or not (see :func:`cellseg_d2.detections.instances.to_detections`), from which they are made.

    Args:
        dataset_name: registered, with COCO RLE segmentations.
        params: how detections become cells.
        output_dir: where ``submission.csv`` and ``competition.json`` go; None writes nothing.
        save_detections: whether what the model detected, before any of ``params``, goes to ``detections.npz`` too, and
            ``params`` to ``postprocess.yaml``: what ``cellseg-d2 tune-postprocess`` starts from.
        class_names: classes of the model, for ``detections.npz``; None takes the dataset's.
        category_map: what the dataset's categories are called in the model, see
            :func:`cellseg_d2.data.categories.map_categories`; by it types are compared where images hold several.

    Result of ``evaluate``: ``{"competition": {"mean", "<cell type>", …, "score@0.50" …, "precision50", "recall50",
    "tp50", "fp50", "fn50"}}``, scores in 0…1.
    """

    def __init__(
        self,
        dataset_name: str,
        params: PostprocessParams,
        output_dir: str | Path | None = None,
        save_detections: bool = False,
        class_names: Sequence[str] | None = None,
        category_map: Sequence[Sequence[str]] = (),
    ):
        self._params = params
        self._save_detections = save_detections
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self._truth = {entry["image_id"]: entry for entry in DatasetCatalog.get(dataset_name)}
        self._names = _image_names(dataset_name, self._truth)
        self._type_names = MetadataCatalog.get(dataset_name).thing_classes
        self._mapped_names = map_categories(self._type_names, category_map)
        self._class_names = class_names or self._type_names
        self._mixed = any(
            len({a["category_id"] for a in entry["annotations"] if is_cell(a)}) > 1 for entry in self._truth.values()
        )
        self.reset()

    def reset(self) -> None:
        self._scores: dict[str, tuple[ImageScore, str, dict[str, ImageScore]]] = {}
        self._rows: dict[str, list[str]] = {}
        self._detections: dict[str, Detections] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            truth = self._truth[image["image_id"]]
            detections = to_detections(output["instances"])
            cells = output["cells"] if "cells" in output else postprocess(detections, self._params)
            predicted = [crop_to_coco(crop, cells.height, cells.width) for crop in cells.crops]
            regions = ignored_regions(truth, cells.height, cells.width)
            counted = judged(predicted, coco_mask.merge(regions) if regions else None)
            predicted = [predicted[i] for i in counted]
            annotations = [annotation for annotation in truth["annotations"] if is_cell(annotation)]
            name = self._names[image["image_id"]]
            types = [self._type_names[a["category_id"]] for a in annotations]
            cell_type = Counter(types).most_common(1)[0][0] if types else "no cells"
            true = rles_of(annotations, cells.height, cells.width)
            score, of_types = score_image(predicted, true), {}
            if self._mixed:
                found = [self._class_names[index] for index in cells.classes[counted]]
                mapped = [self._mapped_names[a["category_id"]] for a in annotations]
                of_types = score_types(predicted, found, true, mapped)
            self._scores[name] = (score, cell_type, of_types)
            self._rows[name] = [crop_to_kaggle(crop, cells.width) for crop in cells.crops]
            if self._save_detections:
                self._detections[name] = _compact(detections)

    def evaluate(self) -> dict | None:
        gathered = comm.gather((self._scores, self._rows, self._detections))
        if not comm.is_main_process():
            return None
        # In one order, whichever process saw an image: files and sums are then the same for any number of them.
        scores, rows, detections = (
            dict(sorted((name, value) for part in parts for name, value in part.items()))
            for parts in zip(*gathered, strict=True)
        )
        summary = summarize(
            {name: score for name, (score, _, _) in scores.items()},
            {name: cell_type for name, (_, cell_type, _) in scores.items()},
            {name: of_types for name, (_, _, of_types) in scores.items()},
        )
        logger.info("competition score\n%s", summary.table())
        if self._output_dir is not None:
            write_submission(self._output_dir / "submission.csv", rows)
            write_json_atomic(self._output_dir / "competition.json", summary.to_dict(), indent=1)
            if self._save_detections:
                save_detections(self._output_dir / DETECTIONS_FILE_NAME, detections, self._class_names)
                self._params.to_yaml(self._output_dir / PARAMS_FILE_NAME, "What the score beside this was made with.")
        return {"competition": summary.metrics()}


def _image_names(dataset_name: str, truth: Mapping[int, Mapping]) -> dict[int, str]:
    """A name for each image by id that no other has: that by which the dataset's JSON is read, where it has one."""
    json_file = MetadataCatalog.get(dataset_name).get("json_file")
    names = read_coco(json_file).names if json_file else {}
    if truth.keys() <= names.keys():
        return names
    return dict(zip(truth, distinct_names([key_of(entry["file_name"]) for entry in truth.values()]), strict=True))


def _compact(detections: Detections) -> Detections:
    """Probabilities as float16, which is how they are saved; the images of the whole data set are kept till then."""
    masks = detections.masks
    return replace(detections, masks=masks.astype(np.float16)) if isinstance(masks, np.ndarray) else detections


@EVALUATOR_REGISTRY.register("competition", class_blind=True)
def competition(cfg: CfgNode, dataset_name: str, output_dir: Path) -> CompetitionEvaluator:
    """the competition's mean over IoU thresholds, of cells after ``TEST.POSTPROCESS``"""
    classes = cfg.MODEL.CLASS_NAMES or None
    params = PostprocessParams.from_config(cfg)
    category_map = cfg.DATASETS.CATEGORY_MAP
    return CompetitionEvaluator(dataset_name, params, output_dir, cfg.TEST.SAVE_DETECTIONS, classes, category_map)
