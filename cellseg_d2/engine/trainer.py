"""Detectron2's default trainer with this project's mapper, optimizers, evaluators and records."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter, TensorboardXWriter
from fvcore.common.checkpoint import Checkpointer
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from cellseg_d2.data.categories import in_classes, mixed
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.data.stream import SampleStream, build_stream_loader
from cellseg_d2.engine.accumulation import AccumulatingTrainer
from cellseg_d2.engine.checkpointer import CellCheckpointer
from cellseg_d2.engine.console import ConsoleWriter
from cellseg_d2.engine.hooks import (
    BestCheckpointer,
    Evaluation,
    PeriodicCheckpointer,
    PlotCurves,
    RecordWriter,
    SeedSteps,
    WeightAverage,
)
from cellseg_d2.engine.optimizers import build_optimizer
from cellseg_d2.engine.registry import WRITER_REGISTRY
from cellseg_d2.engine.writers import LossCSVWriter, MetricsWriter
from cellseg_d2.errors import CellSegError
from cellseg_d2.evaluation.build import build_evaluator
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.inference.evaluated import EvaluatedSegmenter, without_annotations
from cellseg_d2.inference.out_of_memory import is_out_of_memory
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.folding import fold_frozen_norms
from cellseg_d2.weights.adapt import load_pretrained
from cellseg_d2.weights.timm_weights import load_backbone
from cellseg_d2.weights.weights import load_trained

logger = logging.getLogger(__name__)


class CellTrainer(DefaultTrainer):
    """``DefaultTrainer`` for cells.

    A run that is killed and resumed ends with the same weights as one that is not, bit for bit where the operations of
    the device are deterministic, which those of CPUs are: the optimizer's, the schedule's and the gradient scaler's
    state is in the checkpoint, and everything random follows from ``SEED`` and the iteration (:class:`SampleStream`,
    :class:`SeedSteps`).

    Example:
        >>> trainer = CellTrainer(cfg)  # doctest: +SKIP
        >>> trainer.resume_or_load(resume=False)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(self, cfg: CfgNode):
        super().__init__(cfg)
        if (batches := cfg.SOLVER.GRADIENT_ACCUMULATION) > 1:
            self._trainer = AccumulatingTrainer(
                self.model, self.data_loader, self.optimizer, batches, cfg.SOLVER.AMP.ENABLED
            )

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = build_network(cfg)
        logger.info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        cfg = mixed(cfg)
        return build_stream_loader(cfg, CellDatasetMapper(cfg, is_train=True))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """A loader of image names, which :meth:`test` reads as ``cellseg-d2 infer`` reads images. A loader that gives
        images may replace it; the network then gets these as they are.
        """
        return build_detection_test_loader(cfg, dataset_name, mapper=without_annotations, num_workers=0)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        output_dir = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name

        def truth(evaluator: str) -> str:
            """The dataset with its own cell types where the measure does not ask for classes, else with the model's."""
            blind = EVALUATOR_REGISTRY.choose(evaluator, "TEST.EVALUATORS").details.get("class_blind")
            if blind or not cfg.MODEL.CLASS_NAMES:
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
        fold_frozen_norms(model.eval())  # as for predictions
        return model

    def resume_or_load(self, resume: bool = True) -> None:
        """As in ``DefaultTrainer``; weights other than those of a resumed run are adapted (:func:`load_pretrained`).

        A damaged last checkpoint is replaced by the one before it. A new training removes the marker by which an
        earlier one could be resumed.
        """
        if comm.is_main_process() and resume:
            self.checkpointer.repair_last()
        comm.synchronize()
        resumes = resume and self.checkpointer.has_checkpoint()
        if (source := self.cfg.MODEL.TIMM.PRETRAINED) and not self.cfg.MODEL.WEIGHTS and not resumes:
            load_backbone(self.checkpointer.model, source)
            logger.info("backbone %s from %s", self.cfg.MODEL.TIMM.NAME, source)
        elif not self.cfg.MODEL.WEIGHTS or resumes:
            super().resume_or_load(resume)
        else:
            transfer = load_pretrained(self.checkpointer.model, self.cfg)
            logger.info("from %s: %s", self.cfg.MODEL.WEIGHTS, transfer)
        if comm.is_main_process() and not resume:
            self.checkpointer.forget_last()  # now that nothing can be refused any more

    def train(self) -> dict | None:
        """Train as ``DefaultTrainer`` does.

        Raises:
            CellSegError: out of memory. Using less would change the training, so users must choose that.
        """
        stream = getattr(self.data_loader, "dataset", None)
        if isinstance(stream, SampleStream):
            stream.start_at(self.start_iter * self.cfg.SOLVER.GRADIENT_ACCUMULATION)
        elif self.start_iter > 0:
            logger.warning(
                "the data loader of %s starts again: only that of build_stream_loader continues where it was",
                type(self).__name__,
            )
        try:
            return super().train()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            batch = self.cfg.SOLVER.IMS_PER_BATCH
            raise CellSegError(
                f"iteration {self.iter} does not fit into memory: halve SOLVER.IMS_PER_BATCH {batch} and double "
                f"SOLVER.GRADIENT_ACCUMULATION {self.cfg.SOLVER.GRADIENT_ACCUMULATION}, or lower the size of crops or "
                f"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE {self.cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE}"
            ) from error

    def after_train(self) -> None:
        # Detectron2 counts one further where nothing was left to train, as when the last evaluation was cut off.
        self.iter = min(self.iter, self.max_iter)
        super().after_train()

    def state_dict(self) -> dict:
        # After the last iteration, Detectron2 counts one further.
        iteration = min(self.iter, self.max_iter - 1)
        return {**super().state_dict(), "iteration": iteration, "seed": self.cfg.SEED}

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        if (seed := state_dict.get("seed", self.cfg.SEED)) != self.cfg.SEED:
            logger.warning(
                "the run began with SEED %d and continues with %d, so it cannot be repeated", seed, self.cfg.SEED
            )

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None) -> dict:
        """Like ``DefaultTrainer.test``, on what ``cellseg-d2 infer`` predicts with the same configuration."""
        return super().test(cfg, EvaluatedSegmenter(cfg, model), evaluators)

    def build_writers(self) -> list[EventWriter]:
        """What prints, to the console and to ``log.txt``, TensorBoard's, and the user's own; the files that tools read
        have writers and a hook of their own.
        """
        printers = [ConsoleWriter(self.max_iter), CommonMetricPrinter(self.max_iter)]
        own = [make(self.cfg) for make in WRITER_REGISTRY.values()]
        return [*printers, TensorboardXWriter(self.cfg.OUTPUT_DIR), *own]

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks, with the checkpoint after the evaluation, so that it contains the score."""
        cfg, folder = self.cfg, Path(self.cfg.OUTPUT_DIR)
        average = WeightAverage(self.model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        model = average.averaged if average else self.model
        # Detectron2's constructor, which ends with this call, has made a checkpointer that writes in place.
        self.checkpointer = CellCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))

        def evaluate() -> dict:
            self._last_eval_results = self.test(cfg, model)
            return self._last_eval_results

        others = hooks.EvalHook, hooks.PeriodicCheckpointer, hooks.PeriodicWriter
        result = [SeedSteps(cfg.SEED) if cfg.SEED >= 0 else None]
        stock = super().build_hooks()
        result += [hook for hook in stock if not isinstance(hook, others)]
        # Weights of a whole network may already find cells; what is begun from nothing scores nothing.
        result += [average, Evaluation(cfg.TEST.EVAL_PERIOD, evaluate, first=bool(cfg.MODEL.WEIGHTS))]
        if comm.is_main_process():
            best = CellCheckpointer(model, cfg.OUTPUT_DIR, tag=False, trainer=weakref.proxy(self))
            files = [LossCSVWriter(folder / "losses.csv"), MetricsWriter(folder / "metrics.json")]
            result += [
                BestCheckpointer(cfg.TEST.EVAL_PERIOD, best, cfg.TEST.BEST_METRIC) if cfg.DATASETS.TEST else None,
                RecordWriter(files, (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD)),
                PeriodicCheckpointer(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD),
                PlotCurves(cfg.TEST.EVAL_PERIOD or 500),
                *(hook for hook in stock if isinstance(hook, hooks.PeriodicWriter)),
            ]
        return result
