"""Common style of all plots, with matplotlib's objects alone, without ``pyplot``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.io.outputs import MARK, check_pictures

TOTAL_COLOR, MUTED, GRID = "#1b1f27", "#6b7280", "#e3e6ea"
# Okabe & Ito (2008), for a white ground.
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#8C8C8C")
TYPE_LINE_COLORS = {"shsy5y": "#C99A00", "astro": "#0072B2", "cort": "#D55E00"}


def type_line_colors(types: Sequence[str]) -> dict[str, str]:
    """A colour for each cell type: its own, or the next that is not a type's own."""
    others = [color for color in LINE_COLORS if color not in TYPE_LINE_COLORS.values()]
    return {name: TYPE_LINE_COLORS.get(name, others[place % len(others)]) for place, name in enumerate(types)}


def new_figure(size: tuple[float, float], title: str | None = None) -> Figure:
    """An empty figure of ``size`` (width, height) in inches, with a bold title at the left if there is one."""
    figure = Figure(figsize=size, dpi=110, facecolor="white", layout="constrained")
    if title is not None:
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold", color=TOTAL_COLOR)
    return figure


def style_axes(axes: Axes, title: str) -> None:
    """Title at the left, a light grid, two spines."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=TOTAL_COLOR)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8bec6")
    axes.tick_params(colors=MUTED, labelsize=9)


def legend_beside(axes: Axes, title: str | None = None) -> None:
    """A legend at the right of the axes, where it hides nothing."""
    axes.legend(
        title=title,
        title_fontsize=8,
        fontsize=9,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        alignment="left",
    )


def figure_png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": MARK})
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the figure as PNG atomically.

    Raises:
        CellSegError: the name does not end in ``.png``, or the file cannot be written.
    """
    check_pictures([path])
    picture = figure_png(figure)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(picture)
    except OSError as error:
        raise CellSegError(f"{path} cannot be written: {error.strerror or error}") from None
