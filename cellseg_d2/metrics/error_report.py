"""Summarise the errors of many images by cell type, size and crowding, and what correcting each kind would give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from tabulate import tabulate

from cellseg_d2.errors import CellSegError
from cellseg_d2.metrics.competition import CompetitionScore, summarize
from cellseg_d2.metrics.error_types import (
    PREDICTED_KINDS,
    TRUE_KINDS,
    ImageErrors,
    count_kinds,
    score_if_corrected,
)

# First number of neighbours of each group.
CROWDING_EDGES = (0, 1, 2, 3, 4, 6, 9)


@dataclass(frozen=True)
class CellGroup:
    """Cells of all images that have something in common, such as their size.

    Attributes:
        name: for example ``"64–127"``.
        true_counts: true cells by what became of them, see :data:`cellseg_d2.metrics.error_types.TRUE_KINDS`.
        predicted_counts: predicted cells likewise; None where these cannot be grouped this way.
        recall: share of the true cells that are found at IoU > 0.5; None without any.
        mean_recall: the same, averaged over the metric's thresholds 0.50 … 0.95.
        precision: share of the predicted cells that are hits at IoU > 0.5; None without any.
        score: TP / (TP + FP + FN) of the group's cells together, averaged over the thresholds; not the competition's
            mean over images.
    """

    name: str
    true_counts: dict[str, int]
    predicted_counts: dict[str, int] | None
    recall: float | None
    mean_recall: float | None
    precision: float | None
    score: float | None

    @property
    def true(self) -> int:
        """Number of true cells."""
        return sum(self.true_counts.values())


def _group(
    name: str,
    true_kinds: np.ndarray,
    true_hits: np.ndarray,
    predicted: tuple[np.ndarray, np.ndarray] | None = None,
) -> CellGroup:
    counts = count_kinds(true_kinds, TRUE_KINDS)
    recall = float(true_hits[:, 0].mean()) if len(true_hits) else None
    mean_recall = float(true_hits.mean()) if len(true_hits) else None
    if predicted is None:
        return CellGroup(name, counts, None, recall, mean_recall, None, None)
    kinds, hits = predicted
    tp = true_hits.sum(axis=0)
    cells = len(true_hits) + (~hits).sum(axis=0)
    precision = float(hits[:, 0].mean()) if len(hits) else None
    score = float((tp / np.maximum(cells, 1)).mean()) if len(true_hits) + len(hits) else None
    return CellGroup(name, counts, count_kinds(kinds, PREDICTED_KINDS), recall, mean_recall, precision, score)


@dataclass(frozen=True, eq=False)
class ErrorReport:
    """The errors of images.

    Attributes:
        images: by name, at least one.
        cell_types: type by name, possibly not of all images.
    """

    images: Mapping[str, ImageErrors]
    cell_types: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.images:
            raise CellSegError("there is no image whose errors could be analysed")

    @cached_property
    def score(self) -> CompetitionScore:
        """The competition score."""
        return summarize({name: errors.score for name, errors in self.images.items()}, self.cell_types)

    @cached_property
    def by_type(self) -> dict[str, ErrorReport]:
        """The same for the images of each cell type, in alphabetical order."""
        own = {name: self.cell_types[name] for name in self.images if name in self.cell_types}
        return {
            kind: ErrorReport({name: self.images[name] for name in own if own[name] == kind}, self.cell_types)
            for kind in sorted(set(own.values()))
        }

    @property
    def worst_first(self) -> list[str]:
        """Names of the images, from the lowest score to the highest."""
        return sorted(self.images, key=lambda name: (self.score.per_image[name], name))

    @cached_property
    def whole(self) -> CellGroup:
        """All cells as one group."""
        return _group("all", self._all("true_kinds"), self._all("true_hits"), self._predicted())

    @cached_property
    def corrected(self) -> dict[str, float]:
        """See :func:`cellseg_d2.metrics.error_types.score_if_corrected`."""
        return score_if_corrected(list(self.images.values()))

    @property
    def gains(self) -> dict[str, float]:
        """By how much the score would rise if one kind of error were corrected."""
        return {name: score - self.score.mean for name, score in self.corrected.items()}

    @cached_property
    def displacement(self) -> dict[str, tuple[float, float] | None]:
        """How far found cells lie ``"right"`` and ``"down"`` of their annotations: mean, standard error, in pixels.

        None where fewer than two are found. Where most cells of a data set lie beside their annotations by the same,
        ``TEST.POSTPROCESS.MASK_OFFSET`` takes it back.
        """
        all_of = self._all("displacements")
        if len(all_of) < 2:
            return {"right": None, "down": None}
        means, errors = all_of.mean(axis=0), all_of.std(axis=0, ddof=1) / np.sqrt(len(all_of))
        return {name: (float(means[i]), float(errors[i])) for i, name in enumerate(("right", "down"))}

    def _all(self, attribute: str) -> np.ndarray:
        return np.concatenate([getattr(errors, attribute) for errors in self.images.values()])

    def _predicted(self) -> tuple[np.ndarray, np.ndarray]:
        return self._all("predicted_kinds"), self._all("predicted_hits")

    def size_edges(self) -> list[int]:
        """Areas in pixels that bound groups of cells, each twice the one before; see :meth:`by_size`.

        Groups at either end that have few true cells (less than 2 %) are joined to their neighbour.
        """
        areas = self._all("true_areas")
        if len(areas) == 0:
            return []
        low, high = (int(np.log2(max(1, area))) for area in (areas.min(), areas.max()))
        edges = [2**power for power in range(low + 1, high + 1)]
        least = 0.02 * len(areas)
        while edges and (areas < edges[0]).sum() < least:
            edges.pop(0)
        while edges and (areas >= edges[-1]).sum() < least:
            edges.pop()
        return edges

    def by_size(self, edges: Sequence[int] | None = None) -> list[CellGroup]:
        """Groups by area in pixels: a true cell by its own, a predicted one by its own.

        Args:
            edges: first area of each group but the first; default :meth:`size_edges`.
        """
        edges = self.size_edges() if edges is None else list(edges)
        names = [f"{a}–{b - 1}" for a, b in pairwise(edges)]
        names = [f"< {edges[0]}", *names, f"≥ {edges[-1]}"] if edges else ["all"]
        true, predicted = (np.digitize(self._all(side), edges) for side in ("true_areas", "predicted_areas"))
        kinds, hits = self._predicted()
        return [
            _group(
                name,
                self._all("true_kinds")[true == place],
                self._all("true_hits")[true == place],
                (kinds[predicted == place], hits[predicted == place]),
            )
            for place, name in enumerate(names)
        ]

    def by_crowding(self) -> list[CellGroup]:
        """Groups by the number of a true cell's neighbours; a predicted cell has none, so there is recall only."""
        neighbours = self._all("neighbours")
        edges = list(CROWDING_EDGES)
        names = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in pairwise(edges)]
        names.append(f"≥ {edges[-1]}")
        place = np.digitize(neighbours, edges) - 1
        return [
            _group(name, self._all("true_kinds")[place == i], self._all("true_hits")[place == i])
            for i, name in enumerate(names)
        ]

    def to_dict(self) -> dict:
        """Everything as plain numbers, strings and dicts, ready for JSON; the images worst first."""
        edges = self.size_edges()
        return {
            "score": self.score.to_dict(),
            "cells": _plain(self.whole),
            "score_if_corrected": self.corrected,
            "displacement": self.displacement,
            "by_size": [_plain(group) for group in self.by_size(edges)],
            "by_crowding": [_plain(group) for group in self.by_crowding()],
            "by_type": {
                name: {
                    "score": report.score.mean,
                    "cells": _plain(report.whole),
                    "score_if_corrected": report.corrected,
                    "displacement": report.displacement,
                    "by_size": [_plain(group) for group in report.by_size(edges)],
                    "by_crowding": [_plain(group) for group in report.by_crowding()],
                }
                for name, report in self.by_type.items()
            },
            "images": [
                {
                    "id": name,
                    "cell_type": self.cell_types.get(name),
                    "score": self.score.per_image[name],
                    "true": self.images[name].true_counts,
                    "predicted": self.images[name].predicted_counts,
                }
                for name in self.worst_first
            ],
        }

    def tables(self, worst: int = 10) -> str:
        """Aligned text: by type, where found cells lie, by size, by crowding, the ``worst`` images."""
        kinds = [*TRUE_KINDS[1:], *PREDICTED_KINDS[2:]]
        reports = [*self.by_type.items(), ("all", self)]

        def counts(report: ErrorReport) -> list[int]:
            true, predicted = report.whole.true_counts, report.whole.predicted_counts or {}
            return [true[kind] for kind in TRUE_KINDS[1:]] + [predicted[kind] for kind in PREDICTED_KINDS[2:]]

        rows = [
            (name, len(r.images), r.score.mean, r.whole.true, r.whole.recall, r.whole.precision, *counts(r))
            for name, r in reports
        ]
        headers = ["cell type", "images", "score", "cells", "recall", "precision", *kinds]
        parts = [_table(rows, headers)]
        names = list(self.corrected)
        rows = [(name, r.score.mean, *r.gains.values()) for name, r in reports]
        headers = ["gain if corrected", "score", *names]
        parts.append(tabulate(rows, headers, floatfmt=("", ".3f", *["+.3f"] * len(names)), disable_numparse=[0]))
        found = [
            (name, len(r._all("displacements")), *map(_with_error, r.displacement.values())) for name, r in reports
        ]
        lie = _table(found, ["found cells lie", "cells", "right, pixels", "down, pixels"])
        parts.append(f"{lie}\n(of their annotations; TEST.POSTPROCESS.MASK_OFFSET of the opposite sign takes it back)")
        for title, groups in (("area, pixels", self.by_size()), ("neighbours", self.by_crowding())):
            shares = [[_share(group.true_counts[kind], group.true) for kind in TRUE_KINDS] for group in groups]
            rows = [
                (g.name, g.true, g.score, g.precision, g.mean_recall, *share)
                for g, share in zip(groups, shares, strict=True)
            ]
            headers = [title, "cells", "score", "precision", "mean recall", *TRUE_KINDS]
            if all(group.predicted_counts is None for group in groups):
                rows, headers = [(*row[:2], *row[4:]) for row in rows], headers[:2] + headers[4:]
            parts.append(_table(rows, headers))
        if worst > 0:
            rows = list[tuple]()
            for name in self.worst_first[:worst]:
                true, predicted = self.images[name].true_counts, self.images[name].predicted_counts
                cell_type, score = self.cell_types.get(name, "–"), self.score.per_image[name]
                shown = [true[kind] for kind in TRUE_KINDS] + [predicted[kind] for kind in PREDICTED_KINDS[2:]]
                rows.append((name, cell_type, score, *shown))
            parts.append(_table(rows, ["worst images", "cell type", "score", "found", *kinds]))
        return "\n\n".join(parts)


def _plain(group: CellGroup) -> dict:
    return dict(vars(group))


def _with_error(value: tuple[float, float] | None) -> str | None:
    return None if value is None else f"{value[0]:+.2f} ± {value[1]:.2f}"


def _share(part: int, whole: int) -> str | None:
    return f"{part / whole:.0%}" if whole else None


def _table(rows: Sequence[Sequence], headers: Sequence[str]) -> str:
    return tabulate(rows, headers, floatfmt=".3f", missingval="–", disable_numparse=[0])
