"""Detectron2's default trainer with this project's mapper, optimizers, evaluators and records."""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.optim import Optimizer

from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.data.mixing import in_classes, mixed
from cellseg_d2.engine.hooks import BestCheckpointer, PlotCurves
from cellseg_d2.engine.optimizers import build_optimizer
from cellseg_d2.engine.pretrained import load_pretrained
from cellseg_d2.engine.writers import LossCSVWriter
from cellseg_d2.errors import CellSegError
from cellseg_d2.evaluation.build import build_evaluator
from cellseg_d2.inference.instances import UnpastedMasks
from cellseg_d2.inference.weights import load_trained

logger = logging.getLogger(__name__)

# Measures that compare masks whatever their classes.
CLASS_BLIND = ("competition",)


class CellTrainer(DefaultTrainer):
    """``DefaultTrainer`` for cells.

    Example:
        >>> trainer = CellTrainer(cfg)  # doctest: +SKIP
        >>> trainer.resume_or_load(resume=False)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        cfg = mixed(cfg)
        return build_detection_train_loader(cfg, mapper=CellDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_detection_test_loader(cfg, dataset_name, mapper=CellDatasetMapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        output_dir = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name

        def truth(evaluator: str) -> str:
            """The dataset with its own cell types where the measure does not ask for classes, else with the model's."""
            if evaluator in CLASS_BLIND or not cfg.MODEL.CLASS_NAMES:
                return dataset_name
            return in_classes(dataset_name, cfg.DATASETS.CATEGORY_MAP, cfg.MODEL.CLASS_NAMES, output_dir)

        return DatasetEvaluators([build_evaluator(name, cfg, truth(name), output_dir) for name in cfg.TEST.EVALUATORS])

    @classmethod
    def build_trained(cls, cfg: CfgNode, resume: bool = False) -> nn.Module:
        """The model with all of ``MODEL.WEIGHTS``, or those of the last checkpoint in ``OUTPUT_DIR``, for evaluation.

        Raises:
            CellSegError: there are no weights, or they are not all that the model has.
        """
        model = cls.build_model(cfg)
        checkpoints = Checkpointer(model, cfg.OUTPUT_DIR, save_to_disk=False)
        weights = checkpoints.get_checkpoint_file() if resume and checkpoints.has_checkpoint() else cfg.MODEL.WEIGHTS
        if not weights:
            raise CellSegError("nothing to evaluate: give MODEL.WEIGHTS, or --resume for the last checkpoint")
        load_trained(model, weights)
        return model

    def resume_or_load(self, resume: bool = True) -> None:
        """As of ``DefaultTrainer``; weights that are not resumed from are adapted (:func:`load_pretrained`)."""
        if not self.cfg.MODEL.WEIGHTS or (resume and self.checkpointer.has_checkpoint()):
            super().resume_or_load(resume)
        else:
            transfer = load_pretrained(self.checkpointer.model, self.cfg)
            logger.info("from %s: %s", self.cfg.MODEL.WEIGHTS, transfer)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None) -> dict:
        """As ``DefaultTrainer.test``, without ever pasting all masks into full-size images."""
        return super().test(cfg, UnpastedMasks(model), evaluators)

    def build_writers(self) -> list[EventWriter]:
        return [*super().build_writers(), LossCSVWriter(Path(self.cfg.OUTPUT_DIR) / "losses.csv")]

    def build_hooks(self) -> list[HookBase | None]:
        hooks = super().build_hooks()
        if comm.is_main_process():
            period = self.cfg.TEST.EVAL_PERIOD
            if self.cfg.DATASETS.TEST:
                # After the evaluation and before the writers, which come last.
                hooks.insert(-1, BestCheckpointer(period, self.checkpointer, self.cfg.TEST.BEST_METRIC))
            hooks.append(PlotCurves(period or 500))
        return hooks
