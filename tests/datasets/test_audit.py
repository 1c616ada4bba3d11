"""The audit against drawn cells whose flaws are known by construction, and against published figures of real ones."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_d2.datasets.audit import Audit, coverage, find_doubles
from cellseg_d2.datasets.audit_report import audit_tables
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.datasets.sartorius import SartoriusCsv
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import intersections
from cellseg_d2.masks.repair import longest_straight_edge, measure_shape, repair_shape

HEIGHT, WIDTH = 60, 90


def rectangle(top, left, height, width):
    return MaskCrop(top, left, np.ones((height, width), bool))


def record_of(*crops, types=("cort",)):
    cells = [CellAnnotation(crop, types[i % len(types)], row) for i, (row, crop) in enumerate(enumerate(crops, 2))]
    return ImageRecord("img", "img.png", HEIGHT, WIDTH, types[0] if cells else None, None, cells)


def check(record, clean=False):
    audit = Audit(FindingLog(clean))
    return audit.check(record), audit


def disc(radius, top=5, left=5):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return MaskCrop(top, left, x**2 + y**2 <= (radius + 0.4) ** 2)


def test_flawless_cells_give_no_finding():
    record = record_of(disc(6), disc(8, 30, 50))
    same, audit = check(record)
    assert same is record
    assert audit.log == []
    assert (audit.images, audit.cells) == (1, 2)
    assert "Nothing was found" in audit_tables(audit)


def test_sums_of_overlapping_rectangles():
    # 10 × 10 px each: the second shares 5 × 10 px with the first, the third 2 × 10 px with the second, the last none.
    record = record_of(*(rectangle(0, left, 10, 10) for left in (0, 5, 13, 40)))
    _, audit = check(record)
    totals = audit.totals["cort"]
    assert (totals.cells, totals.images, totals.most_cells) == (4, 1, 4)
    assert (totals.area, totals.smallest_area) == (400, 100)
    assert (totals.overlapping, totals.overlap_px, totals.foreground_px) == (3, 70, 330)
    assert [vars(overlap) for overlap in audit.overlaps] == [
        {"id": "img", "cells": 4, "overlapping": 3, "overlap_px": 70, "foreground_px": 330}
    ]


boxes = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12)), min_size=0, max_size=8
)


@settings(deadline=None)
@given(boxes)
def test_intersections_and_coverage_against_full_masks(boxes):
    crops = [rectangle(*box) for box in boxes]
    masks = np.array([crop.to_full(40, 40) for crop in crops]).reshape(-1, 40, 40)
    expected = {
        (i, j): int((masks[i] & masks[j]).sum())
        for i in range(len(crops))
        for j in range(i + 1, len(crops))
        if (masks[i] & masks[j]).any()
    }
    first, second, shared = intersections(crops)
    assert dict(zip(zip(first.tolist(), second.tolist(), strict=True), shared.tolist(), strict=True)) == expected
    count = masks.sum(axis=0)
    assert coverage(crops, 40, 40) == ((count > 0).sum(), (count > 1).sum())


def test_doubles_are_found_and_the_larger_one_is_kept():
    small, large, twin, apart = rectangle(0, 0, 10, 9), rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 9), disc(5, 30, 30)
    half = rectangle(0, 5, 10, 10)  # IoU with large 50 / 150
    record = record_of(small, large, twin, apart, half)
    kept, audit = check(record, clean=True)
    assert [cell.row for cell in kept.cells] == [3, 5, 6]
    by_row = {finding.row: finding for finding in audit.log}
    assert by_row[2].kind == "near-duplicate"
    assert "IoU 0.900 with row 3" in by_row[2].reason
    assert (by_row[4].kind, by_row[4].reason) == ("duplicate", "equals row 2")
    assert {finding.action for finding in audit.log} == {"row dropped"}
    same, audit = check(record)
    assert same is record
    assert len(audit.log) == 2
    assert {finding.action for finding in audit.log} == {None}
    assert (audit.totals["cort"].duplicates, audit.totals["cort"].near_duplicates) == (1, 1)


def test_iou_of_exactly_a_half_is_no_double():
    record = record_of(rectangle(0, 0, 10, 10), rectangle(0, 0, 10, 5))
    assert check(record)[1].log == []


def test_in_a_chain_only_the_middle_goes():
    # IoU 0.6 between neighbours, 1/3 between the ends.
    chain = [rectangle(0, left, 4, 12) for left in (0, 3, 6)]
    first, second, shared = intersections(chain)
    assert set(find_doubles(first, second, shared, np.array([48, 48, 48]))) == {1}


def ring():
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    return MaskCrop(10, 10, mask)


def test_holes_and_pieces_are_counted_as_is_usual():
    assert measure_shape(ring(), HEIGHT).holes == 1
    diagonal = np.ones((9, 9), bool)
    diagonal[[3, 4], [3, 4]] = False
    assert measure_shape(MaskCrop(0, 0, diagonal), HEIGHT).holes == 2, "background is 4-connected"
    steps = np.eye(7, dtype=bool)
    assert measure_shape(MaskCrop(0, 0, steps), HEIGHT).components == 1, "cells are 8-connected"
    notch = ring().mask.copy()
    notch[0:4, 4] = False
    assert measure_shape(MaskCrop(0, 0, notch), HEIGHT).holes == 0, "an open bay is no hole"


def test_holes_are_filled_and_small_pieces_dropped():
    pieces = np.zeros((12, 20), bool)
    pieces[:9, :9] = ring().mask
    pieces[11, 18:] = True
    record = record_of(MaskCrop(10, 10, pieces))
    cleaned, audit = check(record, clean=True)
    assert cleaned.cells[0].crop.box == (10, 10, 19, 19)
    assert cleaned.cells[0].crop.mask.all()
    assert [(f.kind, f.reason, f.action) for f in audit.log] == [
        ("holes", "pieces of background enclosed: 1", "9 px filled"),
        ("several components", "it is in 2 pieces", "largest piece kept, 2 px dropped"),
    ]
    same, audit = check(record)
    assert np.array_equal(same.cells[0].crop.mask, pieces)
    assert [f.action for f in audit.log] == [None, None]


def triangle(width):
    """Flat at the bottom, ``width`` px long."""
    return np.tril(np.ones((width, width), bool))


def test_straight_edges_are_line_artefacts_unless_they_are_the_image_s():
    for width, found in ((40, 0), (41, 41), (50, 50)):
        assert measure_shape(MaskCrop(2, 5, triangle(width)), HEIGHT).straight_edge == found
        assert measure_shape(MaskCrop(2, 5, triangle(width)[::-1]), HEIGHT).straight_edge == found
        assert measure_shape(MaskCrop(HEIGHT - width, 5, triangle(width)), HEIGHT).straight_edge == 0
        assert measure_shape(MaskCrop(0, 5, triangle(width)[::-1]), HEIGHT).straight_edge == 0
    assert measure_shape(disc(25), 100).straight_edge == 0
    assert longest_straight_edge(disc(25), 100) < 20


def test_a_thin_line_is_erased_and_a_straight_edge_stays():
    mask = np.zeros((21, 80), bool)
    mask[:, :21] = disc(10).mask
    mask[10, 20:] = True
    crop = MaskCrop(20, 5, mask)
    shape = measure_shape(crop, HEIGHT)
    assert shape.is_broken
    repaired, changed = repair_shape(crop, shape)
    assert changed == {"line artefact": 59}
    assert np.array_equal(repaired.mask, disc(10).mask)

    flat = MaskCrop(2, 5, triangle(50))
    assert repair_shape(flat, measure_shape(flat, HEIGHT)) == (flat, {})
    lone = rectangle(20, 5, 1, 60)
    assert repair_shape(lone, measure_shape(lone, HEIGHT)) == (lone, {}), "nothing would be left"


def test_other_findings_of_an_image():
    _, audit = check(record_of(disc(5), disc(5, 30, 30), disc(5, 30, 60), types=("cort", "astro")))
    assert [(f.kind, f.row, f.reason) for f in audit.log] == [("several cell types", None, "2 cort, 1 astro")]
    assert {name: totals.cells for name, totals in audit.totals.items()} == {"cort": 2, "astro": 1}
    assert {name: totals.images for name, totals in audit.totals.items()} == {"cort": 1, "astro": 0}
    _, audit = check(record_of())
    assert [f.kind for f in audit.log] == ["image without cells"]


def test_the_report_is_json_and_the_table_names_rows():
    record = record_of(ring(), ring())
    for clean in (False, True):
        _, audit = check(record, clean=clean)
        report = json.loads(json.dumps(audit.to_dict()))
        assert report["kinds"]["holes"] == {"severity": "warning", "count": 2, "acted_on": 2 if clean else 0}
        assert {
            "kind": "duplicate",
            "severity": "warning",
            "id": "img",
            "row": 3,
            "reason": "equals row 2",
            "action": "row dropped" if clean else None,
        } in report["findings"]
        assert report["cells"] == (1 if clean else 2)
        table = audit_tables(audit)
        assert "row 3, img: equals row 2" in table
        assert ("→ row dropped" in table) == clean


@pytest.fixture(scope="module")
def real_audit(shared_data):
    audit = Audit(FindingLog())
    for record in SartoriusCsv(shared_data / "sartorius_annotations_only.csv.gz").records(audit.log):
        audit.check(record)
    return audit


@pytest.mark.parametrize(
    ("cell_type", "holes", "overlapping", "overlap", "broken"),
    [("shsy5y", 3.4, 61.4, 3.3, 6), ("astro", 24.1, 87.1, 2.6, 352), ("cort", 1.2, 26.1, 1.0, 3)],
)
def test_figures_of_the_real_annotations(real_audit, cell_type, holes, overlapping, overlap, broken):
    totals = real_audit.totals[cell_type]
    assert 100 * totals.holes / totals.cells == pytest.approx(holes, abs=0.05)
    assert 100 * totals.overlapping / totals.cells == pytest.approx(overlapping, abs=0.05)
    assert 100 * totals.overlap_px / totals.foreground_px == pytest.approx(overlap, abs=0.05)
    assert totals.line_artefacts == broken
    doubles = [f for f in real_audit.log if f.kind in ("duplicate", "near-duplicate")]
    per_image = {name: sum(f.id == name for f in doubles) for name in ("a9fc5e872671", "ce5d0de993bd", "f653c5eec0f8")}
    assert per_image == {"a9fc5e872671": 146, "ce5d0de993bd": 19, "f653c5eec0f8": 9}


@pytest.mark.parametrize("clean", [False, True])
def test_rare_shapes_are_reported_and_kept_and_cut_cells_are_not_judged(clean):
    seen = []

    def plausibilities(masks):
        seen.extend(masks)
        return np.array([0.2 if len(mask) > 10 else 0.0004 for mask in masks])

    record = record_of(rectangle(5, 5, 4, 8), disc(8, 20, 40), rectangle(0, 60, 4, 8))
    audit = Audit(FindingLog(clean), plausibilities=plausibilities)
    checked = audit.check(record)
    assert len(checked.cells) == 3
    assert [mask.shape for mask in seen] == [(4, 8), (17, 17)]
    found = [finding for finding in audit.log if finding.kind == "implausible shape"]
    assert [(finding.row, finding.severity, finding.action) for finding in found] == [(2, "warning", None)]
    assert "its plausibility is 0.0004" in found[0].reason
    assert "implausible shape" in audit_tables(audit)
    stricter = Audit(FindingLog(clean), plausibilities=plausibilities, implausible=0.5)
    stricter.check(record)
    assert sum(finding.kind == "implausible shape" for finding in stricter.log) == 2
