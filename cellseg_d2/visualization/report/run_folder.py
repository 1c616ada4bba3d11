"""Read the folder of a training run: losses, scores, record and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import NamedTuple

import pandas as pd

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import check_form, read_json, read_yaml
from cellseg_d2.visualization.curves import read_loss_csv, read_scores

RECORDS = ("run.json", "eval.json")  # of a training, or of an evaluation without one
_TEXT, _KNOWN = (str, int, float, NoneType), {"images": int, "cells": int, "sha256": str, "json_file": str}
# What a report relies on: see cellseg_d2/engine/run_record.py.
RECORD_FORM = {
    **dict.fromkeys(("command", "started", "weights"), str),
    "seed": int,
    "machine": {"*": _TEXT},
    "versions": {"*": _TEXT},
    "datasets": {"*": _KNOWN},
}
CONFIG_FORM = {"DATASETS": {"TEST": [str]}}
PARTS = (*RECORDS, "losses.csv", "metrics.json", "config.yaml")


@dataclass(frozen=True, eq=False)
class RunData:
    """The content of a run folder; an unfinished run has only a part of it.

    Attributes:
        folder: folder of the run.
        losses: see :func:`cellseg_d2.visualization.curves.read_loss_csv`; no rows where there is no file.
        scores: see :func:`cellseg_d2.visualization.curves.read_scores`.
        record: content of ``run.json``, else of ``eval.json``; empty if there is neither.
        config_text: text of ``config.yaml``; empty if there is none.
        config: the same, parsed.
        notes: sentences about what is missing.
    """

    folder: Path
    losses: pd.DataFrame
    scores: pd.DataFrame
    record: Mapping = field(default_factory=dict)
    config_text: str = ""
    config: Mapping = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> tuple[float, int] | None:
        """The best validation score and its iteration; None before the first evaluation."""
        if "mean" not in self.scores or not self.scores["mean"].notna().any():
            return None
        row = self.scores.loc[self.scores["mean"].idxmax()]
        return float(row["mean"]), int(row["iteration"])


def read_run(folder: str | Path) -> RunData:
    """Read the folder that ``cellseg-d2 train-net`` writes, also while it is being written.

    Raises:
        CellSegError: the folder holds none of the files of a run, or one of them is damaged.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in PARTS):
        raise CellSegError(
            f"{folder} holds none of {', '.join(PARTS)}: name the OUTPUT_DIR of a training with cellseg-d2 train-net"
        )
    notes = []
    losses = folder / "losses.csv"
    if losses.is_file():
        frame = read_loss_csv(losses)
    else:
        frame = pd.DataFrame({"iteration": [], "total_loss": []}, dtype="float64")
        notes.append("The run's folder has no losses.csv, so there are no loss curves.")
    record_file = next((folder / name for name in RECORDS if (folder / name).is_file()), None)
    record = read_json(record_file) if record_file else {}
    check_form(record, RECORD_FORM, record_file)
    if record_file is None:
        notes.append("The run's folder has no run.json, so command, versions and data are unknown.")
    config_file = folder / "config.yaml"
    text, config = "", {}
    if config_file.is_file():
        config = read_yaml(config_file)
        check_form(config, CONFIG_FORM, config_file)
        text = config_file.read_text(encoding="utf-8-sig")
    else:
        notes.append("The run's folder has no config.yaml.")
    return RunData(folder, frame, read_scores(folder / "metrics.json"), record, text, config, tuple(notes))


class EvaluatedDataset(NamedTuple):
    """A dataset's name, its ``submission.csv``, and the JSON of its truth; None if that no longer exists."""

    name: str
    submission: Path
    truth: Path | None


def evaluated_dataset(run: RunData, dataset: str | None = None) -> EvaluatedDataset | None:
    """The predictions that a run's last evaluation left; None if there are none.

    Args:
        run: the run.
        dataset: its name; by default the first of ``DATASETS.TEST`` that has predictions.

    Raises:
        CellSegError: there are no predictions of ``dataset``.
    """
    found = {path.parent.name: path for path in sorted(run.folder.glob("inference/*/submission.csv"))}
    if dataset is not None and dataset not in found:
        raise CellSegError(
            f"{run.folder}/inference has no submission.csv of {dataset!r} (there are: {', '.join(found) or 'none'})"
        )
    tested = run.config.get("DATASETS", {}).get("TEST", ())
    order = [dataset] if dataset else [*(name for name in tested if name in found), *found]
    if not order:
        return None
    name = order[0]
    truth = Path(run.record.get("datasets", {}).get(name, {}).get("json_file", ""))
    return EvaluatedDataset(name, found[name], truth if truth.is_file() else None)
