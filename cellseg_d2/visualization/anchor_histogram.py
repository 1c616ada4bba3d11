"""Draw how well anchors cover cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cellseg_d2.visualization.figures import TOTAL_COLOR, save_figure

COLORS = ("#8C8C8C", "#0072B2", "#D55E00", "#009E73")  # Okabe & Ito (2008)
BINS = np.linspace(0, 1, 51)
# The RPN learns from anchors of this IoU and more.
LEARNT_FROM = 0.7


def save_iou_histogram(path: str | Path, ious: Mapping[str, np.ndarray], types: np.ndarray) -> None:
    """Draw the best anchor IoU of all cells, one panel a type and one line a set of anchors.

    :data:`LEARNT_FROM` is marked; the legends give the shares of cells below it.

    Args:
        path: path of the PNG.
        ious: by the name of a set of anchors, float ``(N,)``, results of :func:`cellseg_d2.modeling.anchors.best_iou`.
        types: ``(N,)`` of str.
    """
    names = np.unique(types)
    figure = Figure(figsize=(9, 0.6 + 2.1 * len(names)), dpi=120, layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        own = types == name
        for color, (label, iou) in zip(COLORS, ious.items(), strict=False):
            weights = np.full(own.sum(), 100 / own.sum())
            text = f"{label}: {100 * (iou[own] < LEARNT_FROM).mean():.0f} % below {LEARNT_FROM:g}"
            panel.hist(iou[own], BINS, weights=weights, histtype="step", linewidth=1.6, color=color, label=text)
        panel.axvline(LEARNT_FROM, color=TOTAL_COLOR, linewidth=0.8, linestyle=":")
        panel.set_title(f"{name} ({own.sum():,} cells)", loc="left", fontsize=10)
        panel.set_ylabel("% of cells")
        panel.legend(loc="upper left", frameon=False, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("IoU of a cell's box with the best anchor")
    panels[-1].set_xlim(0, 1)
    save_figure(figure, path)
