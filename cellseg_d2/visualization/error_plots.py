"""Draw errors: plots by type, size and crowding of the cells, and each image with its errors in colour.

Drawn with matplotlib's objects alone, as in :mod:`cellseg_d2.visualization.curves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.metrics.error_report import CellGroup, ErrorReport
from cellseg_d2.metrics.error_types import PREDICTED_KINDS, TRUE_KINDS, ImageErrors
from cellseg_d2.visualization.comparison import FALSE_POSITIVE, MATCHED, MISSED, contact_sheet
from cellseg_d2.visualization.figures import (
    MUTED,
    TOTAL_COLOR,
    legend_beside,
    new_figure,
    save_figure,
    style_axes,
    type_line_colors,
)
from cellseg_d2.visualization.overlays import RGB, check_inside, draw_outlines, text_strip

SHIFTED: RGB = (86, 190, 245)
MERGED: RGB = (245, 230, 66)
SPLIT: RGB = (150, 130, 255)
# On images. What belongs together has one colour on both sides: a merged cell and the prediction that merges it.
TRUE_COLORS = dict(zip(TRUE_KINDS, (MATCHED, SHIFTED, MERGED, SPLIT, MISSED), strict=True))
PREDICTED_COLORS = dict(zip(PREDICTED_KINDS, (MATCHED, SHIFTED, MERGED, SPLIT, FALSE_POSITIVE), strict=True))
# The same hues for a white ground.
PAPER = ("#2FA784", "#6BB7E3", "#E8C42E", "#8577D8")
TRUE_PAPER = dict(zip(TRUE_KINDS, (*PAPER, "#C24BB5"), strict=True))
PREDICTED_PAPER = dict(zip(PREDICTED_KINDS, (*PAPER, "#E07B28"), strict=True))

# A point in a plot of recall is drawn open, or not at all, when fewer true cells are behind it.
FEW, TOO_FEW = 20, 5


def error_panel(
    image: np.ndarray,
    truth: Sequence[MaskCrop],
    prediction: Sequence[MaskCrop],
    errors: ImageErrors,
    title: str,
    *,
    upscale: int = 2,
    thickness: int = 2,
) -> np.ndarray:
    """Image, truth and prediction side by side, each cell in the colour of its kind of error.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16.
        truth, prediction: the T and P masks that ``errors`` is about, in the same order.
        errors: result of :func:`cellseg_d2.metrics.error_types.find_errors`.
        title: for the strip on top.
        upscale, thickness: as in :func:`cellseg_d2.visualization.overlays.draw_outlines`.

    Returns:
        ``(h, w, 3)`` uint8 RGB, with ``w`` somewhat more than ``3 * W * upscale``.
    """
    height, width = np.shape(image)[:2]
    if (len(truth), len(prediction)) != (len(errors.true_kinds), len(errors.predicted_kinds)):
        raise CellSegError(
            f"{len(truth)} true and {len(prediction)} predicted masks were given for the errors of "
            f"{len(errors.true_kinds)} and {len(errors.predicted_kinds)} cells"
        )
    check_inside([*truth, *prediction], height, width)
    text_size = max(11, round(width * upscale / 44))

    def column(crops: Sequence[MaskCrop], kinds: np.ndarray, colors: Mapping[str, RGB], name: str) -> np.ndarray:
        palette = np.array(list(colors.values()))
        fills = np.where(kinds == 0, 0.12, 0.45)  # errors stand out
        drawn = draw_outlines(image, crops, palette[kinds], thickness=thickness, fill=fills, upscale=upscale)
        counts = np.bincount(kinds, minlength=len(colors))
        shown = [(f"{kind} {n}", color) for (kind, color), n in zip(colors.items(), counts, strict=True) if n]
        return np.concatenate([text_strip(drawn.shape[1], f"{name}: {len(crops)}", shown, text_size), drawn])

    plain = draw_outlines(image, [], upscale=upscale)
    columns = [
        np.concatenate([text_strip(plain.shape[1], "image", text_size=text_size), plain]),
        column(truth, errors.true_kinds, TRUE_COLORS, "truth"),
        column(prediction, errors.predicted_kinds, PREDICTED_COLORS, "prediction"),
    ]
    # A legend of two lines must not push one picture below the others.
    lowest = max(len(picture) for picture in columns)
    strip = [np.repeat(picture[:1], lowest - len(picture), axis=0) for picture in columns]
    body = contact_sheet([np.concatenate(pair) for pair in zip(strip, columns, strict=True)], columns=3)
    legend: list[tuple[str, RGB | None]] = [(f"score {errors.score.score:.3f}", None)]
    return np.concatenate([text_strip(body.shape[1], title, legend, round(text_size * 1.2)), body])


def plot_kinds(report: ErrorReport, output_png: str | Path) -> None:
    """Draw what became of the true and of the predicted cells of each type, as shares with their numbers."""
    reports = {**report.by_type, "all": report} if len(report.by_type) != 1 else report.by_type
    figure = new_figure((12.5, 1.9 + 0.62 * 2 * len(reports)), "What became of the cells")
    axes = figure.subplots(2, 1)
    sides = (
        ("True cells", TRUE_PAPER, lambda group: group.true_counts),
        ("Predicted cells", PREDICTED_PAPER, lambda group: group.predicted_counts),
    )
    for own, (title, colors, counts_of) in zip(axes, sides, strict=True):
        style_axes(own, title)
        rows = {name: counts_of(part.whole) for name, part in reports.items()}
        for place, counts in enumerate(rows.values()):
            _stack(own, place, counts, colors, horizontal=True)
        labels = [f"{name}  ({sum(counts.values()):,})" for name, counts in rows.items()]
        own.set_yticks(range(len(rows)), labels)
        own.invert_yaxis()
        own.grid(visible=False)
        own.set_xlim(0, 1)
        own.xaxis.set_major_formatter(PercentFormatter(1))
        _legend_of_kinds(own, colors)
    save_figure(figure, output_png)


def plot_groups(report: ErrorReport, by: str, output_png: str | Path, distance: float = 10) -> None:
    """Draw errors and recall against the size or the crowding of cells.

    Args:
        report: the errors of all images.
        by: ``"size"`` or ``"crowding"``.
        output_png: the picture, replaced as a whole.
        distance: in pixels, at which cells count as neighbours; for the label only.
    """
    edges = report.size_edges()

    def groups_of(part: ErrorReport) -> list[CellGroup]:
        return part.by_size(edges) if by == "size" else part.by_crowding()

    label = "area, pixels" if by == "size" else f"true cells within {distance:g} pixels"
    figure = new_figure((12.5, 8), f"Errors by {by} of the cells")
    above, below = figure.subplots(2, 1, sharex=True)
    groups = groups_of(report)
    style_axes(above, "True cells")
    for place, group in enumerate(groups):
        _stack(above, place, group.true_counts, TRUE_PAPER)
        above.text(place, 1.02, f"{group.true:,}", ha="center", fontsize=9, color=MUTED)
    above.set_ylim(0, 1.1)
    above.yaxis.set_major_formatter(PercentFormatter(1))
    above.grid(visible=False)
    _legend_of_kinds(above, TRUE_PAPER)

    style_axes(below, "Recall, mean over IoU 0.50 … 0.95")
    lines = [("all", groups, TOTAL_COLOR, 2.6)]
    if len(report.by_type) > 1:
        colors = type_line_colors(list(report.by_type))
        lines += [(name, groups_of(part), colors[name], 1.5) for name, part in report.by_type.items()]
    for name, own, color, width in lines:
        values = [np.nan if group.true < TOO_FEW else group.mean_recall for group in own]
        below.plot(range(len(own)), values, color=color, linewidth=width, label=name, zorder=3 if name == "all" else 2)
        for place, (group, value) in enumerate(zip(own, values, strict=True)):
            face = "white" if group.true < FEW else color
            below.plot(place, value, "o", color=color, markerfacecolor=face, markersize=6)
    if by == "size":
        values = [np.nan if group.score is None else group.score for group in groups]
        below.plot(
            range(len(groups)), values, ":", color=TOTAL_COLOR, linewidth=1.6, label="all, score\n(TP of TP+FP+FN)"
        )
    below.set_xticks(range(len(groups)), [group.name for group in groups])
    below.set_xlabel(label, color=MUTED)
    below.set_ylim(0, None)
    below.set_xlim(-0.6, len(groups) - 0.4)
    legend_beside(below, f"open: fewer than {FEW} cells\nnone: fewer than {TOO_FEW}")
    save_figure(figure, output_png)


def plot_corrections(report: ErrorReport, output_png: str | Path) -> None:
    """Draw by how much the score would rise if all errors of one kind were corrected, for all images and each type."""
    reports = {"all": report} | (report.by_type if len(report.by_type) > 1 else {})
    figure = new_figure((12.5, 4.6), "Gain in score if one kind of error were corrected")
    columns = figure.subplots(1, len(reports), sharey=True, sharex=True, squeeze=False)[0]
    colors = [MUTED, *PAPER[1:], TRUE_PAPER["missed"], PREDICTED_PAPER["spurious"]]
    top = max(gain for part in reports.values() for gain in part.gains.values())
    for axes, (name, part) in zip(columns, reports.items(), strict=True):
        images = len(part.images)
        style_axes(axes, f"{name}: {part.score.mean:.3f}\n({images} image{'' if images == 1 else 's'})")
        axes.barh(list(part.gains), list(part.gains.values()), color=colors, height=0.62)
        for place, gain in enumerate(part.gains.values()):
            axes.text(gain + 0.02 * top, place, f"+{gain:.3f}", va="center", fontsize=9, color=TOTAL_COLOR)
        axes.grid(visible=False, axis="y")
    columns[0].invert_yaxis()
    columns[0].set_xlim(0, max(top, 1e-3) * 1.3)
    save_figure(figure, output_png)


def _stack(
    axes: Axes, place: int, counts: Mapping[str, int], colors: Mapping[str, str], horizontal: bool = False
) -> None:
    """One bar of shares that sum to 1, each with its percentage where there is room for it."""
    whole = sum(counts.values())
    if not whole:
        where = (0.5, place) if horizontal else (place, 0.5)
        axes.text(*where, "none", ha="center", va="center", fontsize=9, color=MUTED)
        return
    start = 0.0
    for kind, count in counts.items():
        share = count / whole
        if horizontal:
            axes.barh(place, share, left=start, color=colors[kind], height=0.72)
        else:
            axes.bar(place, share, bottom=start, color=colors[kind], width=0.78)
        if share >= 0.035:
            where = (start + share / 2, place) if horizontal else (place, start + share / 2)
            axes.text(*where, f"{share:.0%}", ha="center", va="center", fontsize=8.5, color=TOTAL_COLOR)
        start += share


def _legend_of_kinds(axes: Axes, colors: Mapping[str, str]) -> None:
    for kind, color in colors.items():
        axes.bar(0, 0, color=color, label=kind)
    legend_beside(axes)
