"""Kinds of errors on drawn rectangles, neighbours against plain distances, and what the report makes of them."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.competition import score_image
from cellseg_d2.metrics.error_report import ErrorReport
from cellseg_d2.metrics.error_types import (
    CORRECTIONS,
    DEFINITIONS,
    PREDICTED_KINDS,
    TRUE_KINDS,
    count_neighbours,
    find_errors,
    score_if_corrected,
)
from cellseg_d2.predictions.truth import read_predictions, read_truth
from tests.shapes import box

HEIGHT, WIDTH = 60, 120


def kinds_of(predicted, true):
    """Kinds of the true and of the predicted cells, as words."""
    errors = find_errors(*([crop_to_coco(crop, HEIGHT, WIDTH) for crop in side] for side in (predicted, true)))
    true_kinds = [TRUE_KINDS[kind] for kind in errors.true_kinds]
    return true_kinds, [PREDICTED_KINDS[kind] for kind in errors.predicted_kinds]


@pytest.mark.parametrize(
    ("predicted", "true", "predicted_kinds", "true_kinds"),
    [
        ([box(0, 0, 10, 10)], [box(0, 0, 10, 10)], ["hit"], ["found"]),
        ([box(0, 0, 10, 10)], [box(40, 0, 10, 10)], ["spurious"], ["missed"]),
        # IoU exactly 0.5 is no match: the same place, half the size.
        ([box(0, 0, 10, 5)], [box(0, 0, 10, 10)], ["shifted"], ["shifted"]),
        # Half of each overlaps: IoU 1/3.
        ([box(5, 0, 10, 10)], [box(0, 0, 10, 10)], ["shifted"], ["shifted"]),
        # IoU 1/11 > 0.1 is not; 2/18 is.
        ([box(0, 0, 10, 1)], [box(0, 0, 10, 11)], ["spurious"], ["missed"]),
        ([box(8, 0, 10, 10)], [box(0, 0, 10, 10)], ["shifted"], ["shifted"]),
        # One prediction over two equal cells: IoU 0.5 with each.
        ([box(0, 0, 20, 10)], [box(0, 0, 10, 10), box(10, 0, 10, 10)], ["merging"], ["merged", "merged"]),
        # It matches the larger cell; the smaller one is still merged into it.
        ([box(0, 0, 20, 10)], [box(0, 0, 15, 10), box(15, 0, 5, 10)], ["hit"], ["found", "merged"]),
        # It covers exactly half of the second cell, which is not more than half.
        ([box(0, 0, 15, 10)], [box(0, 0, 10, 10), box(10, 0, 10, 10)], ["hit"], ["found", "missed"]),
        # One cell in two equal pieces.
        ([box(0, 0, 10, 10), box(10, 0, 10, 10)], [box(0, 0, 20, 10)], ["fragment", "fragment"], ["split"]),
        # A piece of less than a tenth of the cell does not make it split, but is a fragment beside its match …
        ([box(0, 0, 15, 10), box(15, 0, 1, 10)], [box(0, 0, 20, 10)], ["hit", "fragment"], ["found"]),
        # … and beside another piece.
        ([box(0, 0, 8, 10), box(15, 0, 1, 10)], [box(0, 0, 20, 10)], ["shifted", "fragment"], ["shifted"]),
        # Nothing on one side, or on both.
        ([], [box(0, 0, 5, 5)], [], ["missed"]),
        ([box(0, 0, 5, 5)], [], ["spurious"], []),
        ([], [], [], []),
        # Two predictions of one cell, which may overlap before overlaps are resolved.
        ([box(0, 0, 10, 10), box(0, 0, 10, 9)], [box(0, 0, 10, 10)], ["hit", "fragment"], ["found"]),
        # Near a prediction that belongs to another cell: that is no place error.
        ([box(0, 0, 10, 10)], [box(0, 0, 10, 9), box(0, 6, 10, 20)], ["hit"], ["found", "missed"]),
    ],
)
def test_kinds(predicted, true, predicted_kinds, true_kinds):
    assert kinds_of(predicted, true) == (true_kinds, predicted_kinds)
    # The order does not matter; which of two predictions of one cell is the hit is open.
    turned = kinds_of(predicted[::-1], true[::-1])
    assert [sorted(kinds) for kinds in turned] == [sorted(true_kinds), sorted(predicted_kinds)]


def test_every_kind_is_defined():
    assert list(DEFINITIONS["true cells"]) != []
    assert set(DEFINITIONS["true cells"]) == set(TRUE_KINDS)
    assert set(DEFINITIONS["predicted cells"]) == set(PREDICTED_KINDS)
    assert {kind for c in CORRECTIONS.values() for kind in c["true"]} == set(TRUE_KINDS)
    assert {kind for c in CORRECTIONS.values() for kind in c["predicted"]} == set(PREDICTED_KINDS) - {"hit"}


boxes = st.lists(
    st.builds(box, st.integers(0, 80), st.integers(0, 40), st.integers(1, 40), st.integers(1, 20)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(boxes, boxes)
def test_errors_agree_with_the_metric_and_corrections_never_harm(predicted, true):
    predicted, true = ([crop_to_coco(crop, HEIGHT, WIDTH) for crop in side] for side in (predicted, true))
    errors = find_errors(predicted, true)
    score = score_image(predicted, true)
    assert errors.score == score
    assert (errors.true_counts["found"], errors.predicted_counts["hit"]) == (score.tp[0], score.tp[0])
    assert sum(errors.true_counts.values()) == len(true)
    assert sum(errors.predicted_counts.values()) == len(predicted)
    for corrected in score_if_corrected([errors]).values():
        assert score.score - 1e-12 <= corrected <= 1
    # A merged cell has a prediction that merges it, or one that matches another of its cells.
    if errors.true_counts["merged"]:
        assert errors.predicted_counts["merging"] + errors.predicted_counts["hit"] > 0
    if errors.predicted_counts["merging"]:
        assert errors.true_counts["merged"] + errors.true_counts["found"] >= 2


def test_what_corrections_give():
    true = [box(0, 0, 10, 10), box(20, 0, 10, 10), box(40, 0, 10, 10)]
    predicted = [box(0, 0, 10, 8), box(20, 5, 10, 10), box(60, 0, 10, 10)]  # found at IoU 0.8, shifted, spurious
    encoded = [[crop_to_coco(crop, HEIGHT, WIDTH) for crop in side] for side in (predicted, true)]
    corrected = score_if_corrected([find_errors(*encoded)])
    # The first cell counts at 6 of 10 thresholds: 1 of 5 cells (1 found, 2 wrong, 2 missed), 0 at the other ones.
    assert score_image(*encoded).score == pytest.approx(0.6 / 5)
    assert corrected["outlines of found cells"] == pytest.approx(1 / 5)
    assert corrected["spurious"] == pytest.approx(0.6 / 4)
    assert corrected["missed"] == pytest.approx((6 * 2 / 5 + 4 * 1 / 6) / 10)
    assert corrected["shifted"] == pytest.approx((6 * 2 / 4 + 4 * 1 / 5) / 10)
    assert corrected["merged"] == corrected["split"] == pytest.approx(0.6 / 5)


@settings(max_examples=40, deadline=None)
@given(boxes, st.sampled_from([0, 1, 1.5, 3, 10]))
def test_neighbours_against_all_pairs_of_pixels(crops, distance):
    def near(a, b):
        first, second = (np.argwhere(crop.to_full(HEIGHT, WIDTH)) for crop in (a, b))
        return (((first[:, None] - second[None]) ** 2).sum(axis=2) <= distance**2).any()

    expected = [sum(near(a, b) for j, b in enumerate(crops) if j != i) for i, a in enumerate(crops)]
    assert count_neighbours(crops, distance).tolist() == expected


def test_a_cell_without_pixels_has_no_neighbours():
    empty = MaskCrop(0, 0, np.zeros((0, 0), bool))
    assert count_neighbours([empty, box(0, 0, 3, 3), box(4, 0, 3, 3)], 2).tolist() == [0, 1, 1]
    assert count_neighbours([], 2).tolist() == []


@pytest.fixture
def report():
    """An image with one small cell found and one large cell missed, one with a spurious cell only, one without any."""
    images = {
        "a": ([box(0, 0, 6, 6)], [box(0, 0, 6, 6), box(20, 0, 30, 20)]),
        "b": ([box(0, 0, 6, 6)], []),
        "c": ([], []),
    }
    errors = {
        name: find_errors(*([crop_to_coco(crop, HEIGHT, WIDTH) for crop in side] for side in sides))
        for name, sides in images.items()
    }
    return ErrorReport(errors, {"a": "astro", "c": "cort"})


def test_a_report_groups_by_size_and_crowding(report):
    assert report.score.per_image == {"a": 0.5, "b": 0.0, "c": 1.0}
    assert report.worst_first == ["b", "a", "c"]
    small, large = report.by_size([100])
    assert (small.name, small.true_counts["found"], small.predicted_counts) == (
        "< 100",
        1,
        {"hit": 1, "shifted": 0, "merging": 0, "fragment": 0, "spurious": 1},
    )
    assert (small.recall, small.precision, small.score) == (1.0, 0.5, 0.5)
    assert (large.name, large.recall, large.mean_recall, large.precision, large.score) == ("≥ 100", 0, 0, None, 0)
    alone = report.by_crowding()[0]
    assert (alone.name, alone.true, alone.recall, alone.score) == ("0", 2, 0.5, None)
    assert sum(group.true for group in report.by_crowding()) == 2
    assert [report.by_type[kind].score.mean for kind in ("astro", "cort")] == [0.5, 1.0]


def test_size_groups_double_and_rare_ends_are_joined():
    generator = np.random.default_rng(0)
    sides = [*generator.integers(4, 12, 98), 1, 30]  # areas from 16 to 121, and two far off
    true = [crop_to_coco(box(0, 0, side, side), HEIGHT, WIDTH) for side in sides]
    report = ErrorReport({"a": find_errors([], true)}, {})
    edges = report.size_edges()
    assert edges == [32, 64]
    groups = report.by_size()
    assert [group.name for group in groups] == ["< 32", "32–63", "≥ 64"]
    assert sum(group.true for group in groups) == 100
    assert groups[0].true == sum(side**2 < 32 for side in sides)


def test_a_report_as_json_and_as_text(report):
    content = json.loads(json.dumps(report.to_dict()), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [image["id"] for image in content["images"]] == ["b", "a", "c"]
    assert content["cells"]["true_counts"] == {"found": 1, "shifted": 0, "merged": 0, "split": 0, "missed": 1}
    assert content["score_if_corrected"]["spurious"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert content["by_type"]["astro"]["score"] == 0.5
    text = report.tables(worst=1)
    lines = [line.split() for line in text.splitlines()]
    assert ["all", "3", "0.500", "2", "0.500", "0.500", "0", "0", "0", "1", "0", "0", "1"] in lines
    assert any(line[:3] == ["b", "–", "0.000"] for line in lines)
    assert not any(line[:2] == ["a", "astro"] for line in lines)


def test_where_found_cells_lie_beside_the_true_ones(report):
    true = [box(10, 10, 20, 10), box(50, 20, 10, 20), box(90, 5, 12, 12), box(0, 45, 10, 10)]
    predicted = [
        box(11, 10, 20, 10),
        box(50, 18, 10, 20),
        box(91, 4, 12, 12),
        box(60, 50, 8, 8),
    ]  # the last is elsewhere
    encoded = [[crop_to_coco(crop, HEIGHT, WIDTH) for crop in side] for side in (predicted, true)]
    errors = find_errors(*encoded)
    assert sorted(map(tuple, errors.displacements.tolist())) == [(0, -2), (1, -1), (1, 0)]
    placed = ErrorReport({"a": errors}, {"a": "cort"})
    assert placed.displacement["right"] == pytest.approx((2 / 3, 1 / 3))
    assert placed.displacement["down"] == pytest.approx((-1, 1 / np.sqrt(3)))
    line = next(line for line in placed.tables().splitlines() if "+0.67 ± 0.33" in line)
    assert line.split()[:2] == ["cort", "3"]
    assert "-1.00 ± 0.58" in line
    # Of one found cell nothing can be said.
    assert report.displacement == {"right": None, "down": None}


def test_no_image_at_all():
    with pytest.raises(CellSegError, match="no image"):
        ErrorReport({}, {})


def test_hundreds_of_crowded_cells_take_a_fraction_of_a_second():
    true = [
        crop_to_coco(MaskCrop(18 * (i // 38), 18 * (i % 38), np.ones((17, 17), bool)), 520, 704) for i in range(790)
    ]
    start = time.perf_counter()
    errors = find_errors(true, true)
    assert time.perf_counter() - start < 5
    assert errors.true_counts["found"] == 790
    assert np.median(errors.neighbours) == 8


def test_real_predictions(shared_data):
    truth = read_truth(shared_data / "sartorius" / "train.csv")
    predictions = read_predictions(shared_data / "peers" / "cellpose.csv.gz", truth)
    names = list(predictions.masks)[:8]
    images = {name: find_errors(predictions.masks[name], truth.images[name].masks) for name in names}
    report = ErrorReport(images, truth.cell_types)
    assert report.whole.true == sum(len(truth.images[name].masks) for name in names)
    for name in names:
        assert report.score.images[name] == score_image(predictions.masks[name], truth.images[name].masks)
    assert report.corrected["missed"] > report.score.mean
