"""Hooks of the trainer: random states, evaluation and the best checkpoint across kills and resumptions, and curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventWriter

from cellseg_d2.data.stream import STEP, derived_seed
from cellseg_d2.io.atomic import write_json_atomic
from cellseg_d2.io.text import read_record
from cellseg_d2.visualization.curves import plot_training

BEST_SCORE = "best_score.json"


class SeedSteps(HookBase):
    """Sets the random states of this process before each iteration, for what the model draws.

    So an iteration draws the same whether the run was interrupted before it or not, and nothing needs to be stored.
    Processes that train together draw apart.

    Args:
        seed: of the run, from 0 on.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def before_step(self) -> None:
        seed_all_rng(derived_seed(self._seed, STEP, comm.get_rank(), self.trainer.iter))


@contextmanager
def _before_start(trainer: TrainerBase) -> Iterator[None]:
    """As if it were still the iteration of the checkpoint from which the run resumes."""
    trainer.iter = trainer.storage.iter = trainer.start_iter - 1
    try:
        yield
    finally:
        trainer.iter = trainer.storage.iter = trainer.start_iter


class MissedEvaluation(hooks.EvalHook):
    """At the start of a resumed run, makes up for an evaluation that was cut off.

    A checkpoint is written before the evaluation of the same iteration, so a run that resumes from it would never have
    that score. Whether it is missing, ``best_score.json`` tells.

    Args:
        eval_period, eval_function: of the :class:`detectron2.engine.hooks.EvalHook` of the run.
    """

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if self._period > 0 and start > 0 and start % self._period == 0 and start < self.trainer.max_iter:
            missing = comm.is_main_process() and last_evaluated(self.trainer.cfg.OUTPUT_DIR) < start - 1
            if comm.all_gather(missing)[0]:
                with _before_start(self.trainer):
                    self._do_eval()

    def after_step(self) -> None:
        pass

    def after_train(self) -> None:
        del self._func  # as Detectron2's, which may hold the trainer


class RecordWriter(hooks.PeriodicWriter):
    """Has files written every 20 iterations and right after each evaluation: the rest, a kill would take away.

    Args:
        writers: of files.
        evaluation_period: of the :class:`detectron2.engine.hooks.EvalHook`, which must come before this hook.
    """

    def __init__(self, writers: Sequence[EventWriter], evaluation_period: int):
        super().__init__(writers)
        self._evaluation_period = evaluation_period

    def before_train(self) -> None:
        if self.trainer.storage.latest():  # scores that MissedEvaluation made up for
            self._write()

    def after_step(self) -> None:
        if self._evaluation_period > 0 and (self.trainer.iter + 1) % self._evaluation_period == 0:
            self._write()
        else:
            super().after_step()

    def _write(self) -> None:
        for writer in self._writers:
            writer.write()


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, which also remembers the best score when training is resumed.

    The score is kept in ``best_score.json`` beside the checkpoints rather than in them: a checkpoint is written before
    the evaluation of the same iteration. The file also notes the last iteration that was evaluated; it comes last, when
    the model is saved and the score written by all writers.
    """

    @property
    def _record(self) -> Path:
        return Path(self.trainer.cfg.OUTPUT_DIR) / BEST_SCORE

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            self._record.unlink(missing_ok=True)
            return
        record = read_best_score(self.trainer.cfg.OUTPUT_DIR)
        self.best_metric, self.best_iter = record.get("score"), record.get("iteration")
        if self._val_metric in self.trainer.storage.latest():  # by MissedEvaluation
            with _before_start(self.trainer):
                self._best_checking()

    def _best_checking(self) -> None:
        super()._best_checking()
        record = {"metric": self._val_metric, "score": self.best_metric, "iteration": self.best_iter}
        write_json_atomic(self._record, {**record, "evaluated": self.trainer.iter}, sync=True)


def read_best_score(folder: str | Path) -> dict:
    """The record of :class:`BestCheckpointer` in the folder of a run; empty where there is none."""
    return read_record(Path(folder) / BEST_SCORE) or {}


def last_evaluated(folder: str | Path) -> int:
    """The last iteration of a run whose score and best model are on disk; -1 before the first."""
    return int(read_best_score(folder).get("evaluated", -1))


class PlotCurves(HookBase):
    """Draws ``curves.png`` from the CSV of losses and Detectron2's ``metrics.json``, during training and at its end.

    Must come after the hook that writes these files.

    Args:
        period: in iterations.
    """

    def __init__(self, period: int):
        self._period = max(period, 1)

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._period == 0:
            self._plot()

    def after_train(self) -> None:
        self._plot()

    def _plot(self) -> None:
        folder = Path(self.trainer.cfg.OUTPUT_DIR)
        if (folder / "losses.csv").exists():
            plot_training(folder / "losses.csv", folder / "metrics.json", folder / "curves.png")
