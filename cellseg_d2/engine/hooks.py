"""Hooks of the trainer: random states, averaged weights, the best model, records, checkpoints and curves.

Their order in the trainer is evaluation, best model, records, checkpoint. A checkpoint thus contains the results of
everything before it, and a resumed run repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cellseg_d2.data.stream import STEP, derived_seed
from cellseg_d2.engine.console import tell_score
from cellseg_d2.visualization.curves import plot_training


class SeedSteps(HookBase):
    """Sets the random states of this process before each iteration, for the random numbers of the model.

    An iteration thus uses the same numbers whether or not the run was interrupted before it, and no state is stored.
    Processes that train together use different numbers.

    Args:
        seed: seed of the run, at least 0.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def before_step(self) -> None:
        seed_all_rng(derived_seed(self._seed, STEP, comm.get_rank(), self.trainer.iter))


class WeightAverage(HookBase):
    """Keeps an exponential moving average of the weights, which is evaluated and saved in their place.

    In a checkpoint, ``model`` is the average, as it is in any other file of weights; the weights that are trained are
    in the state of this hook, and training resumes from them. Where there is no such state, it starts from what was
    loaded into the average.

    Attributes:
        averaged: the model with the averaged weights; its buffers are those of the trained one.

    Args:
        model: the model that is trained; a ``DistributedDataParallel`` around it is removed.
        decay: share of the average that an iteration leaves; less in the first ones, which begin from nothing:
            ``min(decay, (1 + n) / (10 + n))`` in the n-th, as TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._decay = decay
        self._trained = getattr(model, "module", model)
        self._average = AveragedModel(self._trained, multi_avg_fn=self._update)
        self.averaged = self._average.module
        self._resumed: dict | None = None

    def before_train(self) -> None:
        self._trained.load_state_dict(self._resumed or self.averaged.state_dict())
        self._average.n_averaged.fill_(self.trainer.start_iter + 1)  # at 0, PyTorch would begin with a copy
        self._resumed = None

    def after_step(self) -> None:
        self._average.update_parameters(self._trained)

    @torch.no_grad()
    def _update(self, average: Sequence[torch.Tensor], trained: Sequence[torch.Tensor], count: torch.Tensor) -> None:
        share = 1 - min(self._decay, (1 + int(count)) / (10 + int(count)))
        for kept, new in zip(average, trained, strict=True):
            kept.lerp_(new, share)

    def state_dict(self) -> dict:
        return {"trained": self._trained.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self._resumed = state["trained"]


class Evaluation(hooks.EvalHook):
    """Detectron2's hook, which says each score, and may also score the weights that a training begins from.

    Args:
        period: iterations between evaluations.
        evaluate: returns the results.
        first: whether a training that does not resume is scored at its beginning, as iteration 0.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict], first: bool = False):
        super().__init__(period, evaluate)
        self._first = first

    def before_train(self) -> None:
        if self._first and self.trainer.start_iter == 0:
            self._score(0)

    def _do_eval(self) -> None:
        self._score(min(self.trainer.iter + 1, self.trainer.max_iter))

    def _score(self, done: int) -> None:
        super()._do_eval()
        if comm.is_main_process():
            tell_score(self.trainer.cfg, self.trainer.storage, done)


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, with the best score stored in checkpoints and restored from them."""

    def state_dict(self) -> dict:
        return {"metric": self._val_metric, "score": self.best_metric, "iteration": self.best_iter}

    def load_state_dict(self, state: dict) -> None:
        if state["metric"] == self._val_metric:
            self.best_metric, self.best_iter = state["score"], state["iteration"]


class RecordWriter(hooks.PeriodicWriter):
    """Writes the files of records every 20 iterations, after each evaluation and before each checkpoint.

    A run that resumes from a checkpoint thus finds all rows up to it. On a GPU, the largest memory that was allocated
    is written with them.

    Args:
        writers: writers of files.
        periods: periods of evaluations and checkpoints in iterations; 0 means never.
    """

    def __init__(self, writers: Sequence[EventWriter], periods: Sequence[int]):
        super().__init__(writers)
        self._periods = [period for period in (self._period, *periods) if period > 0]

    def before_train(self) -> None:
        for writer in self._writers:  # the score of the beginning, which the next one would replace
            writer.write()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or any(done % period == 0 for period in self._periods):
            if torch.cuda.is_available():
                memory = torch.cuda.max_memory_allocated() / 2**20
                self.trainer.storage.put_scalar("gpu_memory_mib", memory, smoothing_hint=False)
            for writer in self._writers:
                writer.write()


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's hook, which writes the last checkpoint once more after the last evaluation.

    The checkpoint before the evaluation keeps the training if the evaluation fails; the one after it contains the best
    score, also if a resumed run has nothing left to train.
    """

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # as Detectron2 tells a complete training from one that failed
            self.checkpointer.save(f"{self.file_prefix}_final", iteration=self.trainer.max_iter - 1)


class PlotCurves(HookBase):
    """Draws ``curves.png`` from the CSV of losses and Detectron2's ``metrics.json``, every ``period`` iterations and at
    the end of training. Must come after the hook that writes these files.
    """

    def __init__(self, period: int):
        self._period = max(period, 1)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done < self.trainer.max_iter:  # else they are drawn next, with the last scores
            self._plot()

    def after_train(self) -> None:
        self._plot()

    def _plot(self) -> None:
        folder = Path(self.trainer.cfg.OUTPUT_DIR)
        if (folder / "losses.csv").exists():
            plot_training(folder / "losses.csv", folder / "metrics.json", folder / "curves.png")
