"""Build evaluators by name; each is a decorated function in a file of this folder."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY


def build_evaluator(name: str, cfg: CfgNode, dataset_name: str, output_dir: Path) -> DatasetEvaluator:
    """The evaluator ``name`` for a registered dataset; its files go to ``output_dir``."""
    return EVALUATOR_REGISTRY.choose(name, "TEST.EVALUATORS")(cfg, dataset_name, output_dir)
