"""Draw how well anchors cover cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.io.outputs import MARK

COLORS = ("#8C8C8C", "#0072B2", "#D55E00", "#009E73")  # Okabe & Ito (2008)
BINS = np.linspace(0, 1, 51)


def save_iou_histogram(
    path: str | Path, ious: Mapping[str, np.ndarray], types: np.ndarray, threshold: float = 0.7
) -> None:
    """Draw the best anchor IoU of all cells, one panel a type and one line a set of anchors.

    Args:
        path: path of the PNG.
        ious: by the name of a set of anchors, float ``(N,)``, results of :func:`cellseg_d2.modeling.anchors.best_iou`.
        types: ``(N,)`` of str.
        threshold: marked; the legends give the shares of cells below it.
    """
    names = np.unique(types)
    figure = Figure(figsize=(9, 0.6 + 2.1 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, names, strict=True):
        own = types == name
        for color, (label, iou) in zip(COLORS, ious.items(), strict=False):
            weights = np.full(own.sum(), 100 / own.sum())
            text = f"{label}: {100 * (iou[own] < threshold).mean():.0f} % below {threshold:g}"
            panel.hist(iou[own], BINS, weights=weights, histtype="step", linewidth=1.6, color=color, label=text)
        panel.axvline(threshold, color="#1b1f27", linewidth=0.8, linestyle=":")
        panel.set_title(f"{name} ({own.sum():,} cells)", loc="left", fontsize=10)
        panel.set_ylabel("% of cells")
        panel.legend(loc="upper left", frameon=False, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("IoU of a cell's box with the best anchor")
    panels[-1].set_xlim(0, 1)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": MARK})
