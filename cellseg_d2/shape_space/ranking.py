"""Rank annotations by the plausibility of their shapes, and compare the ranking with the audit's rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import norm
from tabulate import tabulate

from cellseg_d2.masks.repair import measure_shape
from cellseg_d2.shape_space.cells import CellTable
from cellseg_d2.shape_space.space import ShapeSpace

# Of the audit, as columns of the table: see cellseg_d2.masks.repair.MaskShape.
FLAWS = {"line artefact": "straight_edge", "holes": "holes"}


def rank_cells(space: ShapeSpace, cells: CellTable) -> pd.DataFrame:
    """All cells that lie whole inside their images, the least plausible first.

    Returns:
        One row a cell, whose index is its place in ``cells``: ``image``, ``row`` (the annotation's number or name), its
        ``cell_type``, ``area`` in pixels, ``surprise`` and ``plausibility`` (see :class:`ShapeSpace`), and of the
        audit ``straight_edge`` in pixels (0 where there is none that it minds), ``holes`` and ``components``.
    """
    whole = np.flatnonzero(~cells.cut)
    chosen = cells.select(whole)
    surprise = space.surprises([crop.mask for crop in chosen.crops])
    flaws = [measure_shape(crop, height) for crop, height in zip(chosen.crops, chosen.heights.tolist(), strict=True)]
    table = pd.DataFrame(
        {
            "image": chosen.images,
            "row": chosen.row_column(),
            "cell_type": chosen.types,
            "area": [crop.area for crop in chosen.crops],
            "surprise": surprise,
            "plausibility": norm.sf(surprise),
            "straight_edge": [flaw.straight_edge for flaw in flaws],
            "holes": [flaw.holes for flaw in flaws],
            "components": [flaw.components for flaw in flaws],
        },
        index=whole,
    )
    return table.sort_values("surprise", ascending=False, kind="stable")


def average_precision(flawed: Sequence[bool] | np.ndarray) -> float:
    """Mean of the precision at each flawed cell of a ranking, worst first; NaN where none is flawed."""
    flawed = np.asarray(flawed, dtype=bool)
    precision = np.cumsum(flawed) / np.arange(1, len(flawed) + 1)
    return float(precision[flawed].mean()) if flawed.any() else float("nan")


def agreement(table: pd.DataFrame) -> str:
    """Compare the first cells of a ranking with those that the audit's rules find: a table, empty if they find none."""
    rows = []
    for name, column in FLAWS.items():
        flawed = (table[column] > 0).to_numpy()
        count = int(flawed.sum())
        if count:
            first, few = flawed[:count], flawed[: max(1, len(flawed) // 20)]
            rows.append(
                (
                    name,
                    f"{count:,}",
                    f"{100 * flawed.mean():.2f} %",
                    f"{100 * first.mean():.1f} %",
                    f"{100 * few.sum() / count:.1f} %",
                    f"{average_precision(flawed):.3f}",
                )
            )
    headers = [
        "the audit's rule",
        "cells",
        "share of\nall",
        "precision = recall\namong as many",
        "recall in the\nfirst 5 %",
        "average\nprecision",
    ]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 5)) if rows else ""
