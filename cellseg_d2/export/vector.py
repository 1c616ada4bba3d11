"""Pictures of outlines that stay sharp at any size, for papers and posters: SVG and PDF, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.patheffects import withStroke

from cellseg_d2.export.formats import FORMATS
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.masks.polygons import Polygon
from cellseg_d2.visualization.overlays import place_of_number, to_display
from cellseg_d2.visualization.style import bar_length, bar_text

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation

# An image's pixels an inch; only the relation of lines and letters to the image follows from it.
_DPI = 100
_EDGE = [withStroke(linewidth=1.5, foreground="black")]
# Files of equal content are equal.
_SETTINGS: Any = {"svg.hashsalt": "cellseg_d2", "text.parse_math": False}


@FORMATS.register("svg", suffix=".svg", summary="picture with outlines that stay sharp (SVG), for Inkscape and the web")
def write_svg(path: str | Path, segmentation: Segmentation) -> None:
    """Write the image with its cells' outlines as :attr:`Segmentation.style` says, without a header."""
    _write(path, segmentation, "svg", {"Date": None})


@FORMATS.register("pdf", suffix=".pdf", summary="the same as PDF, for LaTeX and Illustrator")
def write_pdf(path: str | Path, segmentation: Segmentation) -> None:
    """As :func:`write_svg`, as PDF."""
    _write(path, segmentation, "pdf", {"CreationDate": None})


def _write(path: str | Path, segmentation: Segmentation, kind: str, metadata: dict) -> None:
    with matplotlib.rc_context(_SETTINGS), atomic_path(path) as temporary:
        _figure(segmentation).savefig(temporary, format=kind, metadata=metadata, dpi=_DPI)


def _figure(segmentation: Segmentation) -> Figure:
    height, width, style = segmentation.height, segmentation.width, segmentation.style
    figure = Figure(figsize=(width / _DPI, height / _DPI))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    if segmentation.image is not None:
        axes.imshow(to_display(segmentation.image), extent=(0, width, height, 0), interpolation="none", aspect="auto")
    colors = segmentation.colors / 255
    for label, (polygons, color) in enumerate(zip(segmentation.outlines, colors, strict=True), start=1):
        # In SVG an object of its own, called as the cell is in tables, for programs that edit.
        line = PathPatch(_path(polygons), facecolor="none", edgecolor=color, linewidth=0.8, gid=f"cell-{label}")
        axes.add_patch(line)
    for number, crop in zip(style.labels(len(segmentation)) or (), segmentation.crops, strict=False):
        # No wider than the cell, as one can look as near as one likes.
        size = min(5.0, 0.8 * crop.area**0.5 / len(number))
        edge = [withStroke(linewidth=0.3 * size, foreground="black")]
        shown = axes.text(*place_of_number(crop), number, color="white", fontsize=size, path_effects=edge)
        shown.set(horizontalalignment="center", verticalalignment="center_baseline")
    if style.scale_bar and segmentation.pixel_size is not None:
        pixel = segmentation.pixel_size.x_um
        length_um = bar_length(width * pixel)
        length, pad, thick = length_um / pixel, 0.02 * min(height, width), 0.008 * min(height, width)
        left, top = width - pad - length, height - pad - thick
        axes.add_patch(Rectangle((left, top), length, thick, facecolor="white", edgecolor="black", linewidth=0.5))
        text: dict[str, Any] = {"color": "white", "fontsize": 7, "ha": "center", "va": "bottom", "path_effects": _EDGE}
        axes.text(left + length / 2, top - thick, bar_text(length_um), **text)
    return figure


def _path(polygons: list[Polygon]) -> Outline:
    """All rings of a cell as one path."""
    return Outline.make_compound_path(
        *(Outline(np.concatenate([ring, ring[:1]]), closed=True) for polygon in polygons for ring in polygon.rings)
    )
