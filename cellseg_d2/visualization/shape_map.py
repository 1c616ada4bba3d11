"""Draw a space of shapes: its map, the cells in it, and the least plausible ones."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cellseg_d2.masks.normalize import normalize_shape
from cellseg_d2.shape_space.plane import Plane
from cellseg_d2.shape_space.space import ShapeSpace
from cellseg_d2.visualization.comparison import contact_sheet
from cellseg_d2.visualization.figures import legend_beside, new_figure, style_axes, type_line_colors
from cellseg_d2.visualization.overlays import text_strip

SHAPES = 15  # a side of the grid of decoded shapes
MAX_POINTS = 6000  # more cells hide each other
_INK = np.array([27, 31, 39], dtype=float)


def shape_map(space: ShapeSpace, plane: Plane, points: np.ndarray, types: Sequence[str], title: str) -> Figure:
    """Left the shapes that the space has on a grid of places, right the cells at their places, by type.

    Args:
        space: the space of shapes.
        plane: the plane of it that is shown.
        points: float ``(N, 2)``, at least one, where the cells lie on the plane.
        types: types of the ``N`` cells.
        title: title of the picture.
    """
    # The same part of the plane for all data sets of its kind.
    all_points = np.concatenate([plane.project(space.references.latents), points])
    low, high = np.percentile(all_points, [0.5, 99.5], axis=0)
    middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 0.5) * 1.05
    extent = (middle[0] - half, middle[0] + half, middle[1] - half, middle[1] + half)
    mosaic = _mosaic(space, plane, middle, half)
    figure = new_figure((15, 7.4), title)
    left, right = figure.subplots(1, 2)
    left.imshow(mosaic, extent=extent, interpolation="antialiased")
    style_axes(left, "shapes by place")
    left.grid(visible=False)
    right.imshow(255 - (255 - mosaic) // 7, extent=extent, interpolation="antialiased")
    _scatter(right, points, types)
    style_axes(right, f"{len(points):,} cells" if len(points) != 1 else "1 cell")
    right.grid(visible=False)
    for axes in (left, right):
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_aspect("equal")
    return figure


def _mosaic(space: ShapeSpace, plane: Plane, middle: np.ndarray, half: float) -> np.ndarray:
    """The decoded shapes side by side, dark on white, RGB uint8; y goes up."""
    steps = half * (2 * np.arange(SHAPES) + 1 - SHAPES) / SHAPES
    x, y = np.meshgrid(middle[0] + steps, middle[1] + steps[::-1])
    pictures = space.pictures(plane.lift(np.stack([x.ravel(), y.ravel()], axis=1)))
    rows = pictures.reshape(SHAPES, SHAPES, space.size, space.size).swapaxes(1, 2)
    inside = rows.reshape(SHAPES * space.size, SHAPES * space.size)[..., None]
    return np.round(255 - inside * (255 - _INK)).astype(np.uint8)


def _scatter(axes: Axes, points: np.ndarray, types: Sequence[str]) -> None:
    kinds = np.array(types)
    names = sorted(set(types))
    # Each cell is as likely to be shown, in an order that favours no type.
    order = np.random.default_rng(0).permutation(len(points))[:MAX_POINTS]
    colors = type_line_colors(names)
    axes.scatter(
        *points[order].T, c=[colors[kind] for kind in kinds[order]], s=5, alpha=0.55, linewidths=0, rasterized=True
    )
    for name in names:
        label = f"{name} ({np.count_nonzero(kinds == name):,})"
        axes.scatter([], [], c=colors[name], s=40, label=label)
    legend_beside(axes)


def rank_sheet(
    space: ShapeSpace, table: pd.DataFrame, masks: Sequence[np.ndarray], title: str, columns: int = 8
) -> np.ndarray:
    """Draw the first cells of a ranking: the normalised mask and beside it the shape decoded at its position.

    Args:
        space: the space of shapes.
        table: the first rows of :func:`cellseg_d2.shape_space.ranking.rank_cells`.
        masks: masks of these cells, in that order.
        title: for the strip on top.
        columns: cells in a row.

    Returns:
        ``(h, w, 3)`` uint8 RGB.
    """
    made = space.pictures(space.place(masks).latents)
    side = 96
    panels = []
    for mask, own, (_, row) in zip(masks, made, table.iterrows(), strict=True):
        pair = [normalize_shape(mask, space.size)[0], own]
        grey = [
            cv2.resize((255 * picture).round().astype(np.uint8), (side, side), interpolation=cv2.INTER_NEAREST)
            for picture in pair
        ]
        picture = np.repeat(np.concatenate(grey, axis=1)[..., None], 3, axis=2)
        flaws = [name for name, flawed in (("line", row.straight_edge > 0), ("hole", row.holes > 0)) if flawed]
        caption = " ".join([f"{row.surprise:.1f} σ", str(row.cell_type), *flaws])
        panels.append(np.concatenate([text_strip(picture.shape[1], caption, text_size=13), picture]))
    sheet = contact_sheet(panels, columns)
    return np.concatenate([text_strip(sheet.shape[1], title, text_size=18), sheet])
