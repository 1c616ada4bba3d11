"""Print the audit as tables."""

from __future__ import annotations

from tabulate import tabulate

from cellseg_d2.datasets.audit import Audit, TypeTotals
from cellseg_d2.datasets.findings import ERROR, KINDS, Finding


def audit_tables(audit: Audit) -> str:
    """Figures of each cell type as read, and a line for every kind of finding with an example."""
    parts = [f"As read:\n{_type_table(audit.totals)}"]
    if audit.log:
        parts.append(f"Found:\n{_finding_table(audit)}")
    else:
        parts.append("Nothing was found to be wrong.")
    return "\n\n".join(parts)


def _type_table(totals: dict[str, TypeTotals]) -> str:
    rows = [
        (
            name,
            f"{own.images:,}",
            f"{own.cells:,}",
            f"{own.cells / max(own.images, 1):.0f} ({own.most_cells})",
            f"{own.area / max(own.cells, 1):.0f} ({own.smallest_area})",
            _percent(own.overlapping, own.cells),
            _percent(own.overlap_px, own.foreground_px),
            _percent(own.holes, own.cells),
            f"{own.line_artefacts:,}",
            f"{own.duplicates:,} / {own.near_duplicates:,}",
        )
        for name, own in sorted(totals.items())
    ]
    headers = [
        "cell type",
        "images",
        "cells",
        "per image\nmean (max)",
        "area, px\nmean (min)",
        "cells that\noverlap",
        "pixels in\noverlaps",
        "cells\nwith holes",
        "line\nartefacts",
        "equal /\nnear doubles",
    ]
    return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _finding_table(audit: Audit) -> str:
    by_kind: dict[str, list[Finding]] = {}
    for finding in audit.log:
        by_kind.setdefault(finding.kind, []).append(finding)
    rows = []
    for kind, meaning in KINDS.items():
        findings = by_kind.get(kind)
        if not findings:
            continue
        done = sum(finding.action is not None for finding in findings)
        # The example is one that still wants attention, where there is one.
        example = min(findings, key=lambda finding: finding.action is not None)
        where = f"row {example.row}, {example.id}" if example.row is not None else f"{example.id}"
        text = _short(f"{where}: {example.reason}") + (f" → {example.action}" if example.action else "")
        rows.append((meaning.severity, kind, f"{len(findings):,}", f"{done:,}" if done else "", text))
    rows.sort(key=lambda row: row[0] != ERROR)
    return tabulate(
        rows,
        ["", "kind", "count", "acted on", "such as"],
        disable_numparse=True,
        colalign=("left", "left", "right", "right", "left"),
    )


def _short(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
