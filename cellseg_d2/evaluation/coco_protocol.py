"""Average precision by COCO's and by LIVECell's protocol as Detectron2 evaluators."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from cellseg_d2.detections.instances import to_detections
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.io.atomic import write_json_atomic
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.metrics.average_precision import evaluate_coco

logger = logging.getLogger(__name__)


class COCOProtocolEvaluator(DatasetEvaluator):
    """Box and mask AP of all detections, before any threshold on their scores and before overlaps are resolved.

    Detectron2's own ``COCOEvaluator`` falls back to a slow path beyond 100 detections an image; this one does not.

    Args:
        dataset_name: registered, with ``json_file`` in its metadata.
        protocol: ``"coco"`` or ``"livecell"``, see :func:`cellseg_d2.metrics.average_precision.evaluate_coco`.
        output_dir: where ``coco_results.json`` goes; None writes nothing.

    Result of ``evaluate``: ``{"bbox": {"AP", "AP50", …}, "segm": {…}}`` in percent, the keys prefixed with
    ``livecell_`` for that protocol, so that both can stand side by side.
    """

    def __init__(self, dataset_name: str, protocol: str, output_dir: str | Path | None = None):
        self._dataset_name = dataset_name
        self._protocol = protocol
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self.reset()

    def reset(self) -> None:
        self._results: list[dict] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        to_json_ids = {
            v: k for k, v in MetadataCatalog.get(self._dataset_name).thing_dataset_id_to_contiguous_id.items()
        }
        for image, output in zip(inputs, outputs, strict=True):
            detections = to_detections(output["instances"])
            for crop, box, score, class_index in zip(
                detections.crops(), detections.boxes, detections.scores, detections.classes, strict=True
            ):
                x0, y0, x1, y1 = box.tolist()
                self._results.append(
                    {
                        "image_id": image["image_id"],
                        "category_id": to_json_ids[int(class_index)],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "segmentation": crop_to_coco(crop, detections.height, detections.width),
                        "score": float(score),
                    }
                )

    def evaluate(self) -> dict | None:
        gathered = comm.gather(self._results)
        if not comm.is_main_process():
            return None
        results = [result for part in gathered for result in part]
        if self._output_dir is not None:
            write_json_atomic(self._output_dir / "coco_results.json", results)
        scores = evaluate_coco(MetadataCatalog.get(self._dataset_name).json_file, results, protocol=self._protocol)
        prefix = "" if self._protocol == "coco" else f"{self._protocol}_"
        return {prefix + kind: values for kind, values in scores.items()}


@EVALUATOR_REGISTRY.register("coco")
def coco(cfg: CfgNode, dataset_name: str, output_dir: Path) -> COCOProtocolEvaluator:
    """COCO's AP of boxes and masks, at most 100 detections an image"""
    return COCOProtocolEvaluator(dataset_name, "coco", output_dir)


@EVALUATOR_REGISTRY.register("livecell")
def livecell(cfg: CfgNode, dataset_name: str, output_dir: Path) -> COCOProtocolEvaluator:
    """LIVECell's AP, at most 2000 detections an image, with its own area ranges"""
    return COCOProtocolEvaluator(dataset_name, "livecell", output_dir)
