"""Evaluators by name."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from fvcore.common.registry import Registry

from cellseg_d2.errors import CellSegError

EVALUATOR_REGISTRY = Registry("CELL_EVALUATOR")
EVALUATOR_REGISTRY.__doc__ = """
Evaluators that ``TEST.EVALUATORS`` can name. Each entry is called as ``f(cfg, dataset_name, output_dir)``.
"""


def build_evaluator(name: str, cfg: CfgNode, dataset_name: str, output_dir: Path) -> DatasetEvaluator:
    """The evaluator ``name`` for a registered dataset; its files go to ``output_dir``."""
    if name not in EVALUATOR_REGISTRY:
        known = ", ".join(sorted(key for key, _ in EVALUATOR_REGISTRY))
        raise CellSegError(f"TEST.EVALUATORS names {name!r}, which is none of: {known}")
    return EVALUATOR_REGISTRY.get(name)(cfg, dataset_name, output_dir)
