"""The charts of a report as plain data, which ``charts.js`` draws.

A chart is a dict with ``kind`` (``line``, ``bars`` or ``scatter``), ``title``, the labels ``x`` and ``y``, and
``series``, each with a ``name``, a ``color`` (a CSS value) and its numbers. Numbers keep four digits, and long series
are thinned, so that a run of any length costs the page some ten kilobytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cellseg_d2.metrics.competition import THRESHOLDS
from cellseg_d2.visualization.curves import LOG_RANGE, NO_CELL_TYPE, smooth
from cellseg_d2.visualization.report.cells import ReportCells, ReportImage

POINTS = 400  # of a line
TOTAL = "var(--ink)"


def series_color(place: int) -> str:
    """The colour of the series at a place that has no colour of its own."""
    return f"var(--s{place % 8})"


def type_color_name(cell_type: str, cell_types: Sequence[str]) -> str:
    """The colour of a cell type; the page defines it for both schemes."""
    return f"var(--t{list(cell_types).index(cell_type)})"


def training_charts(losses: pd.DataFrame, scores: pd.DataFrame, cell_types: Sequence[str]) -> list[dict]:
    """Losses, validation score, learning rate and time over the iterations, as far as there are any.

    Args:
        losses, scores: see :mod:`cellseg_d2.visualization.curves`.
        cell_types: all that the page knows; the scores' own must be among them (:func:`scored_types`).
    """
    charts = []
    if losses["total_loss"].notna().any():
        charts.append(_loss_chart(losses))
    names = [name for name in ("mean", *scored_types(scores)) if name in scores and scores[name].notna().any()]
    if names:
        charts.append(_score_chart(scores, names, cell_types))
    span = max(5, round(len(losses) / 25))
    for columns, title, smoothed in (
        ({"lr": "learning rate"}, "Learning rate", False),
        ({"time": "all", "data_time": "waiting for data"}, "Seconds per iteration", True),
    ):
        series = []
        for place, (column, name) in enumerate(columns.items()):
            if column in losses and losses[column].notna().any():
                values = smooth(losses[column], span) if smoothed else losses[column]
                series.append({"name": name, "color": series_color(place), **_thinned(losses["iteration"], values)})
        if series:
            charts.append(_training_line(title, series))
    return charts


def _training_line(title: str, series: list[dict]) -> dict:
    """Lines over the iterations; the legend names their last values."""
    return {"kind": "line", "title": title, "x": "iteration", "y": "", "series": series, "last": True}


def scored_types(scores: pd.DataFrame) -> list[str]:
    """The cell types among the columns of the validation scores."""
    return [name for name in scores.columns if name not in ("iteration", "mean") and not NO_CELL_TYPE.fullmatch(name)]


def _loss_chart(losses: pd.DataFrame) -> dict:
    parts = [name for name in losses.columns if name.startswith("loss")]
    span = max(5, round(len(losses) / 25))
    series = []
    for place, name in enumerate(("total_loss", *parts)):
        label = "total" if name == "total_loss" else name.removeprefix("loss_").replace("_", " ")
        line = smooth(losses[name], span)
        entry = {"name": label, "color": TOTAL if place == 0 else series_color(place - 1)}
        entry |= _thinned(losses["iteration"], line)
        if place == 0:  # the spread of single iterations; of all parts it would hide the lines
            entry |= {"bold": True, "band": _bands(losses[name])}
        series.append(entry)
    smoothed = np.array([value for entry in series for value in entry["values"] if value is not None and value > 0])
    wide = len(smoothed) > 0 and smoothed.max() > LOG_RANGE * np.percentile(smoothed, 2)
    chart = _training_line("Training loss", series) | {"log": bool(wide)}
    chart["note"] = f"Moving average (span {span}); shaded: lowest to highest total of single iterations."
    broken = int(losses["total_loss"].isna().sum())
    if broken:
        chart["note"] += f" Iterations without a finite loss: {broken}."
    return chart


def _score_chart(scores: pd.DataFrame, names: Sequence[str], cell_types: Sequence[str]) -> dict:
    series = []
    for name in names:
        line = scores[["iteration", name]].dropna()
        color = TOTAL if name == "mean" else type_color_name(name, cell_types)
        entry = {"name": name, "color": color, "bold": name == "mean", "dots": len(line) <= 60}
        series.append(entry | _thinned(line["iteration"], line[name]))
    chart = _training_line("Validation score", series)
    if "mean" in names:
        best = scores.loc[scores["mean"].idxmax()]
        text = f"best {best['mean']:.3f} at {best['iteration']:.0f}"
        chart["mark"] = {"at": int(best["iteration"]), "value": _short(best["mean"]), "text": text}
    return chart


def _thinned(iterations: pd.Series, values: pd.Series) -> dict[str, list]:
    """At most :data:`POINTS` points, always with the last one; what is no number becomes None."""
    ends = _bucket_ends(len(values))
    return {
        "at": [int(x) for x in iterations.to_numpy()[ends]],
        "values": [_short(value) for value in values.to_numpy()[ends]],
    }


def _bands(values: pd.Series) -> list[list[float | None]]:
    """Lowest and highest value of each bucket of :func:`_thinned`."""
    ends = _bucket_ends(len(values))
    starts = np.concatenate([[0], ends[:-1] + 1])
    array = values.to_numpy()
    buckets = [array[a : b + 1][np.isfinite(array[a : b + 1])] for a, b in zip(starts, ends, strict=True)]
    return [[_short(own.min()), _short(own.max())] if len(own) else [None, None] for own in buckets]


def _bucket_ends(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))


def _short(value: float) -> float | None:
    return float(f"{value:.4g}") if np.isfinite(value) else None


def threshold_chart(cells: ReportCells) -> dict:
    """The score at each IoU threshold, of all images and of each type."""
    whole = cells.errors.score
    rows = [("all", TOTAL, whole)]
    rows += [(name, type_color_name(name, cells.cell_types), score) for name, score in whole.by_type.items()]
    series = [
        {
            "name": name,
            "color": color,
            "bold": name == "all",
            "dots": True,
            "at": list(THRESHOLDS),
            "values": [_short(value) for value in score.per_threshold.values()],
        }
        for name, color, score in (rows if len(rows) != 2 else rows[:1])
    ]
    return {"kind": "line", "title": "Score by IoU threshold", "x": "IoU above", "y": "", "series": series}


def count_chart(cells: ReportCells) -> dict:
    """Cells per image: predicted against true ones; without a truth, how many images have how many cells."""
    if cells.errors is None:
        counts = np.array([image.predicted_count for image in cells.images])
        step = max(1, int(np.ceil((counts.max() + 1) / 20)))
        edges = np.arange(0, counts.max() + step + 1, step)
        series = [{"name": "images", "color": "var(--prediction-paper)", "values": _histogram(counts, edges)}]
        return _bars("Cells per image", "predicted cells in an image", "images", edges, series)
    groups: dict[str, list[ReportImage]] = {}
    for image in cells.images:
        groups.setdefault(image.cell_type or "no type", []).append(image)
    series = [
        {
            "name": name,
            "color": type_color_name(name, cells.cell_types) if name in cells.cell_types else "var(--muted)",
            "at": [image.true_count for image in images],
            "values": [image.predicted_count for image in images],
            "labels": [image.name for image in images],
        }
        for name, images in sorted(groups.items())
    ]
    return {"kind": "scatter", "title": "Cells per image", "x": "true cells", "y": "predicted cells", "series": series}


def size_charts(cells: ReportCells) -> list[dict]:
    """Histograms of the cells' areas, one a type: predicted cells as bars, true ones as a line."""
    groups: dict[str, list[ReportImage]] = {}
    for image in cells.images:
        groups.setdefault(image.cell_type or ("no type" if cells.cell_types else "all cells"), []).append(image)
    collected = {name: (_areas(images, "true"), _areas(images, "predicted")) for name, images in groups.items()}
    largest = max((int(own.max(initial=0)) for pair in collected.values() for own in pair), default=0)
    if largest == 0:
        return []
    smallest = min(int(own.min()) for pair in collected.values() for own in pair if len(own))
    low, high = (float(np.log2(max(1, area))) for area in (smallest, largest))
    # Half octaves in whole pixels, the same for all types, so that the types can be compared.
    edges = np.unique(np.ceil(2.0 ** np.arange(np.floor(low * 2) / 2, np.floor(high * 2) / 2 + 0.75, 0.5))).astype(int)
    charts = []
    for name, (true, predicted) in sorted(collected.items()):
        series = [{"name": "predicted", "color": "var(--prediction-paper)", "values": _histogram(predicted, edges)}]
        if cells.errors is not None:
            series.append({"name": "true", "color": TOTAL, "step": True, "values": _histogram(true, edges)})
        if len(true) + len(predicted):
            chart = _bars(f"Cell area: {name}", "pixels", "cells", edges, series)
            charts.append(chart | {"ticks": [2**power for power in range(31) if 2**power in edges]})
    return charts


def _areas(images: Sequence[ReportImage], side: str) -> np.ndarray:
    if side == "predicted":
        return np.concatenate([image.predicted_areas for image in images])
    return np.concatenate([image.errors.true_areas if image.errors else np.zeros(0, np.int64) for image in images])


def _histogram(values: np.ndarray, edges: np.ndarray) -> list[int]:
    return np.histogram(values, edges)[0].tolist()


def _bars(title: str, x: str, y: str, edges: np.ndarray, series: list[dict]) -> dict:
    """Bars between whole numbers, the last of ``edges`` exclusive."""
    return {"kind": "bars", "title": title, "x": x, "y": y, "edges": edges.tolist(), "series": series}
