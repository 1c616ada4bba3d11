"""Pictures of a training run: losses, learning rate, speed and validation score over the iterations.

The figures are drawn with matplotlib's objects alone, without ``pyplot``, whose global state a library must not touch.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from cellseg_d2.errors import CellSegError, first_line
from cellseg_d2.visualization.figures import (
    GRID,
    LINE_COLORS,
    MUTED,
    TOTAL_COLOR,
    legend_beside,
    new_figure,
    save_figure,
    style_axes,
    type_line_colors,
)

# Of the scores' keys in Detectron2's metrics.json.
SCORES = "competition/"
NO_CELL_TYPE = re.compile(r"score@.*|(precision|recall|tp|fp|fn)50")
LOG_RANGE = 8.0  # a loss that spans more than this factor is drawn on a logarithmic axis


def read_loss_csv(path: str | Path) -> pd.DataFrame:
    """Read the per-iteration losses of a run, also while it is being written.

    A last line without its line break is left out, as it may be half-written. Where a resumed run went back, the
    iterations that it repeated count as written last. What is not a finite number becomes NaN.

    Args:
        path: CSV with the columns ``iteration``, ``total_loss``, ``loss_…``, and possibly ``lr``, ``data_time``,
            ``time`` (seconds).

    Returns:
        The columns as float64, ordered by the strictly increasing ``iteration``; no rows if there are none yet.

    Raises:
        CellSegError: the file cannot be read, or has no column ``iteration`` or ``total_loss``.
    """
    text = _whole_lines(path)
    if not text.strip():
        return pd.DataFrame({"iteration": [], "total_loss": []}, dtype=np.float64)
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=str, on_bad_lines="skip", skipinitialspace=True, index_col=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise CellSegError(f"{path} is not a table of losses: {first_line(error)}") from None
    missing = [name for name in ("iteration", "total_loss") if name not in frame.columns]
    if missing:
        raise CellSegError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(map(str, frame.columns))}")
    frame = frame.apply(pd.to_numeric, errors="coerce").astype(np.float64).replace([np.inf, -np.inf], np.nan)
    return _without_repeats(frame.dropna(subset="iteration"))


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read the validation scores from Detectron2's ``metrics.json`` (one JSON object a line).

    Lines that are not a JSON object (the last one may be half-written) and lines without a score are passed over.

    Args:
        path: path of the file; one that does not exist has no scores yet.

    Returns:
        The columns ``iteration`` and, without :data:`SCORES`, the scores (float64), ordered by ``iteration``.
    """
    rows = []
    for line in _whole_lines(path).splitlines() if Path(path).is_file() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        scores = {key.removeprefix(SCORES): _finite(value) for key, value in record.items() if key.startswith(SCORES)}
        if scores:
            rows.append({"iteration": _finite(record.get("iteration")), **scores})
    if not rows:
        return pd.DataFrame({"iteration": []}, dtype=np.float64)
    return _without_repeats(pd.DataFrame(rows, dtype=np.float64).dropna(subset="iteration"))


def _finite(value: object) -> float:
    """A number that was read, NaN for anything else."""
    try:
        number = float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.nan
    return number if np.isfinite(number) else np.nan


def _whole_lines(path: str | Path) -> str:
    try:
        text = Path(path).read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise CellSegError(f"{path} cannot be read: {error.strerror}") from None
    return text[: text.rfind("\n") + 1]


def _without_repeats(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows that a later row's smaller or equal ``iteration`` has made obsolete."""
    iterations = frame["iteration"].to_numpy()
    if len(iterations) == 0:
        return frame.reset_index(drop=True)
    later = np.append(np.minimum.accumulate(iterations[::-1])[::-1][1:], np.inf)
    return frame[iterations < later].reset_index(drop=True)


def smooth(values: pd.Series, span: float) -> pd.Series:
    """Exponential moving average with bias correction (weights sum to 1 from the first value on); skips NaN.

    Args:
        values: ``(n,)``.
        span: the weight of a value falls by ``(span - 1) / (span + 1)`` with each step.
    """
    return values.ewm(span=max(1.0, span), adjust=True, ignore_na=True).mean()


def plot_training(csv_path: str | Path, metrics_json_path: str | Path, output_png: str | Path) -> None:
    """Draw the losses, learning rate, speed and validation scores of a run; may be called while the run goes on.

    Without any row yet, the picture says so.

    Args:
        csv_path: see :func:`read_loss_csv`.
        metrics_json_path: see :func:`read_scores`.
        output_png: the picture, replaced as a whole.

    Raises:
        CellSegError: the CSV cannot be read or lacks a column, or the picture cannot be written.
    """
    save_figure(training_figure(read_loss_csv(csv_path), read_scores(metrics_json_path), title="Training"), output_png)


def training_figure(
    losses: pd.DataFrame,
    scores: pd.DataFrame,
    colors: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """What :func:`plot_training` draws.

    Args:
        losses, scores: results of :func:`read_loss_csv` and :func:`read_scores`.
        colors: colours of the cell types.
        title: above the picture.
    """
    figure = new_figure((14, 7.2), title)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.35, 1), height_ratios=(3.2, 1))
    loss_axes, rate_axes = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    score_axes, time_axes = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    _plot_losses(loss_axes, losses)
    _plot_column(rate_axes, losses, {"lr": ("learning rate", LINE_COLORS[0])}, "Learning rate")
    _plot_scores(score_axes, scores, colors)
    times = {"time": ("all", LINE_COLORS[0]), "data_time": ("waiting\nfor data", LINE_COLORS[1])}
    _plot_column(time_axes, losses, times, "Seconds per iteration", span=_span(len(losses)))
    iterations = [frame["iteration"].max() for frame in (losses, scores) if len(frame)]
    end = max([1.0, *iterations])
    for axes in (loss_axes, rate_axes, score_axes, time_axes):
        axes.set_xlim(-0.01 * end, 1.02 * end)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    for axes in (rate_axes, time_axes):
        axes.set_xlabel("iteration", color=MUTED)
    return figure


def _span(rows: int) -> int:
    return max(5, round(rows / 25))


def _plot_losses(axes: Axes, losses: pd.DataFrame) -> None:
    style_axes(axes, "Training loss")
    if losses["total_loss"].notna().sum() == 0:
        _say(axes, "no data yet" if len(losses) == 0 else "no finite loss yet")
        return
    parts = [name for name in losses.columns if name.startswith("loss")]
    span = _span(len(losses))
    smoothed = {name: smooth(losses[name], span) for name in ("total_loss", *parts)}
    colors = {"total_loss": TOTAL_COLOR} | {name: LINE_COLORS[i % len(LINE_COLORS)] for i, name in enumerate(parts)}
    for name in smoothed:
        axes.plot(
            losses["iteration"],
            losses[name],
            color=colors[name],
            alpha=0.3 if name == "total_loss" else 0.15,
            linewidth=0.7,
            rasterized=True,  # thousands of points in a vector format, too
        )
    for name, line in smoothed.items():
        marker = "o" if losses[name].notna().sum() == 1 else None
        label = "total" if name == "total_loss" else name.removeprefix("loss_").replace("_", " ")
        label += f"  {line.iloc[-1]:.3g}"
        width = 2.4 if name == "total_loss" else 1.5
        axes.plot(losses["iteration"], line, color=colors[name], linewidth=width, marker=marker, label=label)
    values = np.concatenate([line.dropna().to_numpy() for line in smoothed.values()])
    positive = values[values > 0]
    if len(positive) and positive.max() > LOG_RANGE * np.percentile(positive, 2):
        axes.set_yscale("log", nonpositive="mask")
        # The range of the smoothed lines: single batches may come close to zero and would squash all else.
        axes.set_ylim(max(positive.min() * 0.6, positive.max() * 1e-4), positive.max() * 1.5)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(min(0.0, values.min() * 1.05), None)
    legend_beside(axes, f"light: every iteration\nbold: its moving average\n(EMA, span {span}, bias-corrected)")
    broken = int(losses["total_loss"].isna().sum())
    if broken:
        text = f"{broken} iteration{'s' if broken > 1 else ''} without a finite loss"
        axes.text(0.01, 0.02, text, transform=axes.transAxes, fontsize=9, color="#B00020")


def scored_types(scores: pd.DataFrame) -> list[str]:
    """The cell types among the columns of the validation scores.

    These are all that :meth:`cellseg_d2.metrics.competition.CompetitionScore.metrics` does not name itself
    (``score@0.50``, ``tp50`` …).
    """
    return [name for name in scores.columns if name not in ("iteration", "mean") and not NO_CELL_TYPE.fullmatch(name)]


def _plot_scores(axes: Axes, scores: pd.DataFrame, colors: Mapping[str, str] | None) -> None:
    style_axes(axes, "Validation score")
    cell_types = scored_types(scores)
    names = [name for name in ("mean", *cell_types) if name in scores.columns and scores[name].notna().any()]
    if not names:
        _say(axes, "no validation score yet")
        return
    colors = {"mean": TOTAL_COLOR, **(colors or type_line_colors(cell_types))}
    for name in names:
        line = scores[["iteration", name]].dropna()
        color = colors[name]
        width, size = (2.4, 4.5) if name == "mean" else (1.3, 3)
        label = f"{name}  {line[name].iloc[-1]:.3f}"
        values = line["iteration"], line[name]
        axes.plot(*values, color=color, linewidth=width, marker="o", markersize=size, label=label)
    top = max(0.1, float(scores[names].max().max()))
    axes.set_ylim(0, min(1.0, top * 1.22))
    if "mean" in names:
        best = scores.loc[scores["mean"].idxmax()]
        axes.plot([best["iteration"]], [best["mean"]], "*", color="#E69F00", markersize=17, markeredgecolor=TOTAL_COLOR)
        rightmost = best["iteration"] > 0.6 * scores["iteration"].max()
        axes.annotate(
            f"best {best['mean']:.3f}\nat {best['iteration']:.0f}",
            (best["iteration"], best["mean"]),
            xytext=(-12 if rightmost else 12, 8),
            textcoords="offset points",
            ha="right" if rightmost else "left",
            fontsize=9,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": GRID, "alpha": 0.9},
        )
    legend_beside(axes, title="last score")


def _plot_column(
    axes: Axes, frame: pd.DataFrame, columns: Mapping[str, tuple[str, str]], title: str, span: int | None = None
) -> None:
    """Small axes with one line for each of ``columns`` (name → label, colour), smoothed where ``span`` is given."""
    style_axes(axes, title)
    present = [name for name in columns if name in frame.columns and frame[name].notna().any()]
    if not present:
        _say(axes, "no data yet", size=10)
        return
    for name in present:
        label, color = columns[name]
        values = frame[name].dropna() if span is None else smooth(frame[name].dropna(), span)
        marker = "o" if len(values) == 1 else None
        axes.plot(frame["iteration"][values.index], values, color=color, linewidth=1.5, marker=marker, label=label)
    axes.set_ylim(0, None)
    if len(present) > 1:
        legend_beside(axes)


def plot_score_by_type(scores: Mapping[str, Sequence[float]], output_png: str | Path) -> None:
    """Draw every image's competition score as a point, with the mean of each cell type as a bar.

    Args:
        scores: cell type → scores of its images, 0 … 1.
        output_png: the picture, replaced as a whole.

    Raises:
        CellSegError: there is no score at all, or the picture cannot be written.
    """
    scores = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items() if len(values)}
    if not scores:
        raise CellSegError("there are no scores to draw")
    axes = new_figure((2.2 + 1.5 * len(scores), 5)).add_subplot()
    style_axes(axes, "Score by cell type")
    colors = type_line_colors([*scores])
    for place, (name, values) in enumerate(scores.items()):
        color = colors[name]
        # Spread evenly by rank, not at random: the same scores give the same picture.
        ranks = np.argsort(np.argsort(values)) % 5
        axes.scatter(place + (ranks - 2) * 0.06, values, s=26, color=color, alpha=0.55, linewidths=0)
        axes.hlines(values.mean(), place - 0.3, place + 0.3, color=TOTAL_COLOR, linewidth=2.5)
        axes.annotate(
            f"{values.mean():.3f}",
            (place + 0.3, values.mean()),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
        )
    counts = [f"{name}\n{len(values)} image{'s' if len(values) != 1 else ''}" for name, values in scores.items()]
    axes.set_xticks(range(len(scores)), counts)
    axes.set_xlim(-0.5, len(scores) - 0.35)
    axes.set_ylim(0, min(1.02, max(0.1, max(values.max() for values in scores.values()) * 1.15)))
    axes.grid(visible=False, axis="x")
    save_figure(axes.figure, output_png)


def _say(axes: Axes, text: str, size: int = 15) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=size, color=MUTED)
    axes.set_yticks([])
    axes.grid(visible=False)
