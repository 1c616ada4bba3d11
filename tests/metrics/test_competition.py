"""The competition's metric: analytic truths, and a brute-force version on pixels that shares no code with it."""

import json
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.competition import (
    THRESHOLDS,
    ImageScore,
    mask_iou,
    match_at,
    score_image,
    score_types,
    summarize,
)


def rles(masks):
    return [coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8))) for mask in masks]


def square(top, left, side, size=64):
    return crop_to_coco(MaskCrop(top, left, np.ones((side, side), bool)), size, size)


def line(start, length, size=60):
    """Part of a one-pixel line, so that IoUs are fractions that one can count."""
    return crop_to_coco(MaskCrop(0, start, np.ones((1, length), bool)), 1, size)


# --- an independent version: pixels, exact fractions, every assignment tried ---------------------------------------


def brute_force_iou(a, b):
    union = np.count_nonzero(a | b)
    return Fraction(np.count_nonzero(a & b), union) if union else Fraction(0)


def brute_force_matches(hits):
    """Most pairs that can be matched one to one, by trying all assignments of the smaller side."""
    if len(hits) == 0 or len(hits[0]) == 0:
        return 0
    if len(hits) > len(hits[0]):
        hits = list(zip(*hits, strict=True))
    rows = range(len(hits))
    return max(
        sum(hits[i][j] for i, j in zip(rows, order, strict=True))
        for order in permutations(range(len(hits[0])), len(hits))
    )


def brute_force_score(predicted, true):
    values = []
    for percent in range(50, 100, 5):
        hits = [[brute_force_iou(p, t) > Fraction(percent, 100) for t in true] for p in predicted]
        tp = brute_force_matches(hits)
        total = len(predicted) + len(true) - tp
        values.append(Fraction(tp, total) if total else Fraction(1))
    return sum(values) / len(values)


@st.composite
def cells(draw):
    """Few rectangles on a small image, many of them alike, so that overlaps and near-duplicates abound."""
    masks = []
    for _ in range(draw(st.integers(0, 5))):
        top, left = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        mask = np.zeros((12, 12), bool)
        mask[top : top + draw(st.integers(4, 9)), left : left + draw(st.integers(4, 9))] = True
        masks.append(mask)
    return masks


@given(cells(), cells())
def test_score_equals_brute_force(predicted, true):
    assert score_image(rles(predicted), rles(true)).score == pytest.approx(float(brute_force_score(predicted, true)))


@given(cells(), cells())
def test_iou_equals_brute_force(predicted, true):
    iou = mask_iou(rles(predicted), rles(true))
    expected = [[float(brute_force_iou(p, t)) for t in true] for p in predicted]
    assert iou.shape == (len(predicted), len(true))
    assert iou.dtype == np.float64
    assert np.array_equal(iou, np.array(expected).reshape(iou.shape))


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 6)).flatmap(
        lambda shape: st.lists(
            st.lists(st.booleans(), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
        ).map(lambda rows: np.array(rows, dtype=float).reshape(shape))
    )
)
def test_matching_is_one_to_one_and_maximal(hits):
    matches = match_at(hits, 0.5)
    assert len(set(matches.pred)) == len(set(matches.true)) == len(matches.pred) == len(matches)
    assert (hits[matches.pred, matches.true] == 1).all()
    assert (np.diff(matches.pred) > 0).all()
    assert len(matches) == brute_force_matches(hits.astype(bool).tolist())


@given(cells(), cells(), st.randoms())
def test_order_does_not_matter_and_sides_swap(predicted, true, random):
    score = score_image(rles(predicted), rles(true))
    shuffled = random.sample(predicted, len(predicted)), random.sample(true, len(true))
    assert score_image(rles(shuffled[0]), rles(shuffled[1])) == score
    assert score_image(rles(true), rles(predicted)).tp == score.tp


# --- analytic truths -----------------------------------------------------------------------------------------------


def test_thresholds_are_the_exact_decimals():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.mark.parametrize("percent", range(50, 100, 5))
def test_an_iou_exactly_on_a_threshold_is_no_hit(percent):
    # Nested lines of 1..20 pixels: IoU k/20 is exactly the threshold; one pixel of 1000 more is above it.
    k = percent // 5
    score = score_image([line(0, k)], [line(0, 20)])
    assert sum(score.tp) == sum(threshold < percent / 100 for threshold in THRESHOLDS)
    above = score_image([line(0, 10 * percent + 1, 1000)], [line(0, 1000, 1000)])
    assert sum(above.tp) == sum(score.tp) + 1


@pytest.mark.parametrize("shift", range(0, 21, 2))
def test_shifted_squares(shift):
    # Two 20 × 20 squares, one moved sideways: IoU = (20 - shift) / (20 + shift).
    score = score_image([square(5, 5 + shift, 20)], [square(5, 5, 20)])
    hits = sum((20 - shift) * 100 > percent * (20 + shift) for percent in range(50, 100, 5))
    assert score.score == pytest.approx(hits / 10)


def test_counts_of_hits_misses_and_false_alarms():
    true = [square(0, 0, 10), square(20, 20, 10), square(40, 40, 10)]
    predicted = [square(0, 0, 10), square(20, 0, 10)]
    score = score_image(predicted, true)
    assert (set(score.tp), set(score.fp), set(score.fn)) == ({1}, {1}, {2})
    assert score.score == pytest.approx(1 / 4)


def test_near_duplicate_truth_is_matched_once_each():
    # Two annotations of one cell, as in the real data: one prediction finds one of them, two find both.
    true = [square(0, 0, 10), square(0, 0, 10)]
    assert score_image([square(0, 0, 10)], true).score == pytest.approx(1 / 2)
    assert score_image([square(0, 0, 10)] * 2, true).score == 1
    assert score_image([square(0, 0, 10)] * 3, true).score == pytest.approx(2 / 3)


def test_counting_rows_with_exactly_one_hit_would_lose_cells():
    # IoUs at 0.5: the first prediction hits both cells, the second only the first cell. Both can be matched.
    iou = np.array([[0.9, 0.6], [0.7, 0.1]])
    matches = match_at(iou, 0.5)
    assert (matches.pred.tolist(), matches.true.tolist()) == ([0, 1], [1, 0])


def test_overlapping_predictions_keep_their_full_masks():
    # A label image would cut the second square; mask IoU does not.
    true = [square(0, 0, 20), square(0, 12, 20)]
    assert score_image(true, true).score == 1


def test_empty_cases():
    assert score_image([], []).score == 1
    assert score_image([square(0, 0, 5)], []).score == 0
    assert score_image([], [square(0, 0, 5)]).score == 0


def test_a_mask_without_pixels_is_a_false_alarm():
    empty = crop_to_coco(MaskCrop(0, 0, np.zeros((0, 0), bool)), 64, 64)
    assert mask_iou([empty], [empty]).tolist() == [[0]]
    assert score_image([square(0, 0, 5), empty], [square(0, 0, 5)]).score == pytest.approx(1 / 2)


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(CellSegError, match="64 × 64 and 65 × 65"):
        mask_iou([square(0, 0, 5, 64)], [square(0, 0, 5, 65)])


def test_hundreds_of_overlapping_cells_match_themselves():
    rng = np.random.default_rng(0)
    true = [square(*rng.integers(0, 180, 2), 20, size=200) for _ in range(400)]
    assert score_image(true[::-1], true).score == 1


# --- over images ---------------------------------------------------------------------------------------------------


@pytest.fixture
def summary():
    true = {
        "a": [square(0, 0, 10), square(20, 20, 10)],
        "b": [square(0, 0, 10)],
        "c": [square(0, 0, 10)] * 2,
        "d": [],
    }
    predicted = {"a": [square(0, 0, 10)], "b": [square(30, 30, 10)], "d": []}
    scores = {name: score_image(predicted.get(name, []), masks) for name, masks in true.items()}
    return summarize(scores, {"a": "cort", "b": "cort", "c": "astro"})


def test_means(summary):
    assert summary.per_image == {"a": 0.5, "b": 0, "c": 0, "d": 1}
    assert summary.mean == pytest.approx(1.5 / 4)
    assert summary.per_cell_type == {"astro": 0, "cort": 0.25}
    assert summary.per_threshold == {f"0.{percent}": pytest.approx(1.5 / 4) for percent in range(50, 100, 5)}


def test_counts_pool_all_images(summary):
    assert (summary.tp, summary.fp, summary.fn) == (1, 1, 4)
    assert (summary.precision, summary.recall) == (0.5, 0.2)


def test_mean_over_thresholds_is_mean_over_images():
    scores = {"a": score_image([line(0, 15)], [line(0, 20)]), "b": score_image([line(0, 19)], [line(0, 20)])}
    score = summarize(scores)
    assert score.mean == pytest.approx(np.mean(list(score.per_threshold.values())))
    assert score.per_threshold["0.70"] == 1
    assert score.per_threshold["0.75"] == 0.5
    assert score.per_threshold["0.95"] == 0


def test_flat_names_and_json(summary):
    flat = summary.metrics()
    assert flat["mean"] == summary.mean
    assert flat["cort"] == 0.25
    assert flat["score@0.55"] == summary.per_threshold["0.55"]
    assert (flat["tp50"], flat["fp50"], flat["fn50"]) == (1, 1, 4)
    plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert set(plain) >= {"mean", "per_cell_type", "per_threshold", "per_image"}
    assert plain["per_image"]["a"] == 0.5


def test_undefined_precision_and_recall():
    score = summarize({"a": ImageScore((0,) * 10, 0, 0)})
    assert score.mean == 1
    assert (score.precision, score.recall) == (None, None)
    assert np.isnan(score.metrics()["recall50"])
    assert score.to_dict()["precision50"] is None
    assert score.table().splitlines()[2].split() == ["all", "1", "1.000", "–", "–", "0", "0", "0"]


def test_table_names_types_and_worst_images_first(summary):
    table = summary.table(worst=2)
    lines = table.splitlines()
    assert any(row.split()[:3] == ["astro", "1", "0.000"] for row in lines)
    assert any(row.split()[:3] == ["all", "4", "0.375"] for row in lines)
    worst = lines[next(i for i, row in enumerate(lines) if row.startswith("worst")) + 2 :]
    assert [row.split()[0] for row in worst] == ["b", "c"]


def test_table_leaves_image_ids_as_they_are():
    scores = {name: ImageScore((0,) * 10, 0, 1) for name in ("1e5514", "0042")}
    assert all(name in summarize(scores).table() for name in scores)


def test_no_image_is_an_error():
    with pytest.raises(CellSegError, match="no image"):
        summarize({})


def test_all_sizes_of_matching_agree_on_hand_made_chains():
    # A chain p0-t0-p1-t1-…: every size has a perfect matching that greedy matching from the wrong end misses.
    for n in range(1, 30):
        iou = np.eye(n) + np.eye(n, k=-1)
        assert len(match_at(iou, 0.5)) == n
    for chosen in combinations(range(5), 2):  # without two of the five true cells, three pairs are left
        iou = np.delete(np.eye(5) + np.eye(5, k=-1), chosen, axis=1)
        assert len(match_at(iou, 0.5)) == 3


def test_types_within_an_image_are_scored_by_their_own_cells():
    """Two bright and two dark cells, all found, but one bright one is called dark: bright 1/2, dark 2/3, cells 1."""
    cells = [square(0, 0, 10), square(0, 20, 10), square(30, 0, 10), square(30, 20, 10)]
    true, found = ["bright", "bright", "dark", "dark"], ["bright", "dark", "dark", "dark"]
    types = score_types(cells, found, cells, true)
    score = summarize({"a": score_image(cells, cells)}, {"a": "bright"}, {"a": types})
    assert score.mean == 1
    assert score.per_cell_type == pytest.approx({"bright": 1 / 2, "dark": 2 / 3})
    assert {name: own.tp for name, own in score.by_type.items()} == {"bright": 1, "dark": 2}
    assert score.metrics()["dark"] == pytest.approx(2 / 3)
    assert "the row of a type compares its cells only" in score.table()
    assert "compares its cells only" not in summarize({"a": score_image(cells, cells)}, {"a": "bright"}).table()
    assert score_types([], [], cells[:1], ["x"])["x"].fn[0] == 1


@pytest.mark.parametrize("name", ["mean", "score@0.50", "tp50", "iteration", "recall50"])
def test_a_type_s_name_hides_no_other_figure(name):
    whole, half = [square(0, 0, 10)], [square(0, 0, 10), square(30, 30, 10)]
    scores = {"a": score_image(whole, whole), "b": score_image(whole, half)}
    plain, named = (summarize(scores, types).metrics() for types in (None, {"a": "x", "b": name}))
    assert {key: named[key] for key in plain} == plain
    assert named[f"{name} (type)"] == pytest.approx(0.5)
    assert named["x"] == 1
