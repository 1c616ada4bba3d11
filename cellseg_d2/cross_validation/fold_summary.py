"""Summarise a cross-validation: score ± spread, out-of-fold predictions, time and memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from tabulate import tabulate

from cellseg_d2.cross_validation.cross_validation import CrossValidation, Fold
from cellseg_d2.cross_validation.fold_process import Attempt
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.metrics.competition import CompetitionScore, score_image, summarize
from cellseg_d2.predictions.submission import read_submission, write_submission
from cellseg_d2.predictions.truth import read_predictions, read_truth

HEADERS = ("what", "score (mean ± SD over folds)", "per cell type", "out-of-fold score", "data", "hardware")
HEADERS += ("time per fold", "peak memory", "command")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divided by n - 1; None below two values) of ``count`` folds' scores."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Collection[float]) -> Spread:
        values = np.asarray(list(values), dtype=np.float64)
        return cls(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.deviation is None else f" ± {self.deviation:.3f}")


@dataclass(frozen=True)
class FoldSummary:
    """The finished folds of a cross-validation; made by :func:`summarize_folds`.

    Attributes:
        validation: the cross-validation.
        scores: score by fold, of the folds that have an image to score.
        out_of_fold: the score of all these images as one data set.
        attempts: by finished fold.
        excluded: images that were not scored.
    """

    validation: CrossValidation
    scores: dict[int, CompetitionScore]
    out_of_fold: CompetitionScore
    attempts: dict[int, list[Attempt]]
    excluded: list[str]

    @property
    def score(self) -> Spread:
        """The competition score over the folds; every fold counts the same."""
        return Spread.of([score.mean for score in self.scores.values()])

    @property
    def per_cell_type(self) -> dict[str, Spread]:
        """The same by cell type, over the folds that have images of it."""
        return {
            cell_type: Spread.of(
                [s.per_cell_type[cell_type] for s in self.scores.values() if cell_type in s.per_cell_type]
            )
            for cell_type in self.out_of_fold.per_cell_type
        }

    def to_dict(self) -> dict:
        """Everything as plain numbers, strings and dicts, ready for JSON."""
        folds = []
        for index, attempts in self.attempts.items():
            score = self.scores.get(index)
            folds.append(
                {
                    "fold": index,
                    "images": len(score.images) if score else 0,
                    "mean": score.mean if score else None,
                    "per_cell_type": score.per_cell_type if score else {},
                    "seconds": _seconds(attempts),
                    "peak_memory_mib": _memory(attempts),
                    "gpu_memory_mib": _memory(attempts, "gpu_memory_mib"),
                    "hardware": _hardware(attempts),
                    "attempts": len(attempts),
                }
            )
        return {
            "dataset": self.validation.dataset,
            "folds": len(self.validation.folds),
            "finished": list(self.attempts),
            "excluded": self.excluded,
            "score": vars(self.score),
            "per_cell_type": {name: vars(spread) for name, spread in self.per_cell_type.items()},
            "out_of_fold": self.out_of_fold.to_dict(),
            "per_fold": folds,
        }

    def table(self) -> str:
        """A row for each finished fold, and for all of them."""
        types = list(self.out_of_fold.per_cell_type)
        rows = []
        for index, attempts in self.attempts.items():
            score = self.scores.get(index)
            figures = [score.mean, *(score.per_cell_type.get(name) for name in types)] if score else [None]
            figures = ["–" if value is None else f"{value:.3f}" for value in figures]
            figures += ["–"] * (1 + len(types) - len(figures))
            run = (_clock(_seconds(attempts)), _gib(attempts))
            rows.append((f"fold {index}", len(score.images) if score else 0, *figures, *run))
        spreads = [str(spread) for spread in (self.score, *self.per_cell_type.values())]
        rows.append(("mean ± SD", "", *spreads, _clock(self._mean_seconds), ""))
        whole = [self.out_of_fold.mean, *self.out_of_fold.per_cell_type.values()]
        images = len(self.out_of_fold.images)
        rows.append(("out-of-fold", images, *(f"{value:.3f}" for value in whole), "", ""))
        headers = ["", "images", "score", *types, "time", "peak memory"]
        table = tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))
        missing = [str(fold.index) for fold in self.validation.folds if fold.index not in self.attempts]
        notes = [f"not finished: fold {', '.join(missing)}"] if missing else []
        notes += [f"trained on, but not scored: {', '.join(self.excluded)}"] if self.excluded else []
        return "\n".join([table, *notes])

    @property
    def _mean_seconds(self) -> float:
        return float(np.mean([_seconds(attempts) for attempts in self.attempts.values()]))

    def markdown(self, what: str, command: str) -> str:
        """A table of one row for a list of results, of the configuration called ``what``: header, rule, row."""
        every = [attempt for attempts in self.attempts.values() for attempt in attempts]
        types = ", ".join(f"{name} {spread}" for name, spread in self.per_cell_type.items()) or "–"
        data = f"{self.validation.dataset}, {len(self.scores)} of {len(self.validation.folds)} folds, "
        data += f"{len(self.out_of_fold.images)} images scored"
        data += f" ({len(self.excluded)} trained on only)" if self.excluded else ""
        row = (what, str(self.score), types, f"{self.out_of_fold.mean:.3f}", data, _hardware(every))
        row += (_clock(self._mean_seconds), _gib(every), f"`{command}`")
        lines = [HEADERS, ["---"] * len(HEADERS), [cell.replace("|", "\\|") for cell in row]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summarize_folds(validation: CrossValidation, output_csv: str | Path, exclude: Collection[str] = ()) -> FoldSummary:
    """Write the finished folds' predictions as one submission, and score them.

    Args:
        validation: result of :func:`cellseg_d2.cross_validation.cross_validation.plan`.
        output_csv: the submission with every validated image of the finished folds, also of excluded ones.
        exclude: names of images that are not scored.

    Raises:
        CellSegError: no fold is finished, a fold's predictions do not belong to its images, ``exclude`` names an
            image that no fold has, or no image is left to score.
    """
    finished = [fold for fold in validation.folds if fold.finished]
    if not finished:
        raise CellSegError(f"no fold in {validation.output} is finished, so there is nothing to score")
    check_excluded(validation, exclude)
    rows: dict[str, list[str]] = {}
    for fold in finished:
        rows |= _submission_of(fold)
    write_submission(output_csv, rows)
    scores, types = {}, {}
    for fold in finished:
        truth = read_truth(MetadataCatalog.get(fold.val).json_file)
        masks = read_predictions(fold.submission, truth).masks
        images = {
            fold.names[own]: score_image(masks.get(own, []), image.masks)
            for own, image in track(truth.images.items(), f"scoring fold {fold.index}")
            if fold.names[own] not in exclude
        }
        if images:
            cell_types = {fold.names[own]: cell_type for own, cell_type in truth.cell_types.items()}
            scores[fold.index] = summarize(images, cell_types)
            types |= cell_types
    whole = summarize({name: image for score in scores.values() for name, image in score.images.items()}, types)
    return FoldSummary(validation, scores, whole, {fold.index: fold.attempts for fold in finished}, sorted(exclude))


def check_excluded(validation: CrossValidation, exclude: Collection[str]) -> None:
    """Raise a CellSegError if ``exclude`` names an image that no fold validates."""
    known = validation.images
    unknown = sorted(set(exclude) - known)
    if unknown:
        raise CellSegError(f"images to exclude that {validation.dataset} lacks: {len(unknown)}, such as {unknown[0]}")


def _submission_of(fold: Fold) -> Mapping[str, list[str]]:
    rows = read_submission(fold.submission)
    strange = sorted(rows.keys() ^ fold.names.keys())
    if strange:
        raise CellSegError(
            f"{fold.submission} is not about the images of {fold.val} (for example {strange[0]}); "
            f"delete {fold.folder} to train this fold again"
        )
    return {fold.names[own]: cells for own, cells in rows.items()}


def _seconds(attempts: Collection[Attempt]) -> float:
    return round(sum(attempt.seconds for attempt in attempts), 1)


def _memory(attempts: Collection[Attempt], name: str = "peak_memory_mib") -> float | None:
    return max((value for attempt in attempts if (value := getattr(attempt, name)) is not None), default=None)


def _gib(attempts: Collection[Attempt]) -> str:
    peaks = {"": _memory(attempts), "GPU ": _memory(attempts, "gpu_memory_mib")}
    return ", ".join(f"{of}{peak / 1024:.1f} GiB" for of, peak in peaks.items() if peak is not None) or "–"


def _hardware(attempts: Collection[Attempt]) -> str:
    return " / ".join(dict.fromkeys(attempt.hardware for attempt in attempts))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
