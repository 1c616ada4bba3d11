"""Draw the charts of a report with matplotlib, as SVG that is embedded in the page and uses its colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from cellseg_d2.metrics.competition import THRESHOLDS
from cellseg_d2.visualization.figures import GRID, MUTED, TOTAL_COLOR, style_axes
from cellseg_d2.visualization.report.cells import ReportCells, ReportImage

# A click on a point whose link begins with this opens the picture of the image.
PICTURE = "#picture:"
PREDICTED = "#7db8e0"
_MOST_TICKS = 8  # of areas; of long numbers more would run into each other
_INK = {TOTAL_COLOR: "--ink", MUTED: "--muted", GRID: "--line", "#b8bec6": "--muted", "#ffffff": "--paper"}
_COLOR = re.compile(r"#[0-9a-f]{6}\b")


def as_svg(figure: Figure, variables: Mapping[str, str]) -> Markup:
    """The figure as an element of a page; text stays text.

    Args:
        figure: drawn for a white ground.
        variables: CSS variables that take the place of colours, by these.
    """
    names = {color.lower(): name for color, name in {**_INK, PREDICTED: "--prediction-paper", **variables}.items()}
    FigureCanvasSVG(figure)
    text = io.StringIO()
    # The same figure gives the same text, and names of types and images are not read as formulas.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False}):
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    return Markup(_COLOR.sub(lambda found: f"var({names[found[0]]})" if found[0] in names else found[0], drawn))


def threshold_figure(cells: ReportCells, colors: Mapping[str, str]) -> Figure:
    """The score at each IoU threshold, of all images and of each type."""
    figure, axes = _chart("Score by IoU threshold", "IoU above", "")
    whole = cells.errors.score
    rows = [("all", TOTAL_COLOR, whole), *((name, colors[name], score) for name, score in whole.by_type.items())]
    for name, color, score in rows if len(rows) != 2 else rows[:1]:
        width = 2.4 if name == "all" else 1.4
        axes.plot(THRESHOLDS, [*score.per_threshold.values()], ".-", color=color, linewidth=width, label=name)
    axes.set_ylim(0, None)
    _legend(axes)
    return figure


def count_figure(cells: ReportCells, colors: Mapping[str, str]) -> Figure:
    """Cells per image: predicted against true ones; without a truth, how many images have how many cells."""
    if cells.errors is None:
        figure, axes = _chart("Cells per image", "predicted cells in an image", "images")
        counts = np.array([image.predicted_count for image in cells.images])
        step = max(1, int(np.ceil((counts.max() + 1) / 20)))
        axes.stairs(*np.histogram(counts, np.arange(0, counts.max() + step + 1, step)), fill=True, color=PREDICTED)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        return figure
    figure, axes = _chart("Cells per image", "true cells", "predicted cells")
    for name, images in sorted(_by_type(cells, "no type").items()):
        points = axes.scatter(
            [image.true_count for image in images],
            [image.predicted_count for image in images],
            color=colors.get(name, MUTED),
            alpha=0.75,
            linewidths=0,
            label=name,
        )
        points.set_urls([PICTURE + quote(image.name, safe="") for image in images])
    axes.set_xlim(0, None)
    axes.set_ylim(0, None)
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=1, linestyle=":")
    _legend(axes)
    return figure


def size_figures(cells: ReportCells) -> list[Figure]:
    """Histograms of the cells' areas, one a type: predicted cells as bars, true ones as a line."""
    groups = _by_type(cells, "no type" if cells.cell_types else "all cells")
    collected = {name: (_areas(images, "true"), _areas(images, "predicted")) for name, images in groups.items()}
    largest = max((int(own.max(initial=0)) for pair in collected.values() for own in pair), default=0)
    if largest == 0:
        return []
    smallest = min(int(own.min()) for pair in collected.values() for own in pair if len(own))
    low, high = (float(np.log2(max(1, area))) for area in (smallest, largest))
    # Half octaves in whole pixels, the same for all types, so that the types can be compared.
    edges = np.unique(np.ceil(2.0 ** np.arange(np.floor(low * 2) / 2, np.floor(high * 2) / 2 + 0.75, 0.5))).astype(int)
    figures = []
    for name, (true, predicted) in sorted(collected.items()):
        if len(true) + len(predicted) == 0:
            continue
        figure, axes = _chart(f"Cell area: {name}", "pixels", "cells")
        axes.stairs(*np.histogram(predicted, edges), fill=True, color=PREDICTED, label="predicted")
        if cells.errors is not None:
            axes.stairs(*np.histogram(true, edges), color=TOTAL_COLOR, linewidth=2, label="true")
        axes.set_xscale("log", base=2)
        octaves = [2**power for power in range(31) if 2**power in edges]
        axes.xaxis.set_major_locator(FixedLocator(octaves[:: -(-len(octaves) // _MOST_TICKS)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes)
        figures.append(figure)
    return figures


def _by_type(cells: ReportCells, otherwise: str) -> dict[str, list[ReportImage]]:
    groups: dict[str, list[ReportImage]] = {}
    for image in cells.images:
        groups.setdefault(image.cell_type or otherwise, []).append(image)
    return groups


def _areas(images: Sequence[ReportImage], side: str) -> np.ndarray:
    if side == "predicted":
        return np.concatenate([image.predicted_areas for image in images])
    return np.concatenate([image.errors.true_areas if image.errors else np.zeros(0, np.int64) for image in images])


def _chart(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, title)
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
    return figure, axes


def _legend(axes: Axes) -> None:
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(fontsize=9, frameon=False, labelcolor=TOTAL_COLOR)
