"""Hooks of the trainer: the best checkpoint across resumptions, and curves drawn during training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.engine import HookBase, hooks

from cellseg_d2.files import write_json_atomic
from cellseg_d2.visualization.curves import plot_training


class BestCheckpointer(hooks.BestCheckpointer):
    """Detectron2's hook, which also remembers the best score when training is resumed.

    The score is kept in ``best_score.json`` beside the checkpoints rather than in them: a checkpoint is written before
    the evaluation of the same iteration.
    """

    @property
    def _record(self) -> Path:
        return Path(self.trainer.cfg.OUTPUT_DIR) / "best_score.json"

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            self._record.unlink(missing_ok=True)
        elif self._record.exists():
            record = json.loads(self._record.read_text(encoding="utf-8"))
            self.best_metric, self.best_iter = record["score"], record["iteration"]

    def after_step(self) -> None:
        with self._last_checkpoint_kept():
            super().after_step()
        self._save_record()

    def after_train(self) -> None:
        with self._last_checkpoint_kept():
            super().after_train()
        self._save_record()

    @contextmanager
    def _last_checkpoint_kept(self) -> Iterator[None]:
        """Saving the best model must not make it the checkpoint from which training resumes."""
        last = self._checkpointer.get_checkpoint_file() if self._checkpointer.has_checkpoint() else None
        yield
        if last and self._checkpointer.get_checkpoint_file() != last:
            self._checkpointer.tag_last_checkpoint(Path(last).name)

    def _save_record(self) -> None:
        if self.best_metric is not None and self._saved != (self.best_metric, self.best_iter):
            self._saved = (self.best_metric, self.best_iter)
            write_json_atomic(
                self._record, {"metric": self._val_metric, "score": self.best_metric, "iteration": self.best_iter}
            )

    _saved: tuple[float, int] | None = None


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
