"""Annotations by plausibility, beside the audit's rules."""

import numpy as np
import pytest

from cellseg_d2.shape_space.ranking import agreement, average_precision, rank_cells
from tests.shape_space.drawn import ellipse, table, with_line


def test_line_artefacts_come_first_and_cut_cells_are_not_judged(space):
    rng = np.random.default_rng(4)
    cells = table({"ellipse": [ellipse(rng) for _ in range(60)], "broken": [with_line(rng) for _ in range(12)]})
    cells.cut[3] = True
    ranked = rank_cells(space, cells)
    assert len(ranked) == 71
    assert 3 not in ranked.index
    assert (ranked.cell_type.head(12) == "broken").sum() >= 11
    assert ranked.surprise.is_monotonic_decreasing
    assert ranked.plausibility.is_monotonic_increasing
    assert ranked.row.loc[5] == 6
    assert ranked.area.loc[5] == cells.crops[5].area
    long = [len(crop.mask[0]) > 40 for crop in cells.crops]
    assert (ranked.straight_edge > 0).loc[[i for i in ranked.index if i >= 60 and long[i]]].all()


def test_agreement_is_told_as_precision_and_recall(space):
    rng = np.random.default_rng(4)
    cells = table({"ellipse": [ellipse(rng) for _ in range(95)], "broken": [with_line(rng) for _ in range(25)]})
    ranked = rank_cells(space, cells)
    said = agreement(ranked)
    count = int((ranked.straight_edge > 0).sum())
    line = next(line for line in said.splitlines() if line.startswith("line artefact")).split()
    assert line[2] == str(count)
    hits = int((ranked.straight_edge.head(count) > 0).sum())
    assert line[5] == f"{100 * hits / count:.1f}"
    assert not any(line.startswith("holes") for line in said.splitlines())
    assert agreement(ranked[ranked.straight_edge == 0]) == ""


def test_average_precision():
    assert average_precision([True, True, False]) == 1
    assert average_precision([False, True]) == 0.5
    assert average_precision([True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(average_precision([False]))
