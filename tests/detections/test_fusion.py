"""Fusion of detections: it gives back what all agree on, improves on noisy views, and never collapses."""

from dataclasses import replace
from time import process_time

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams, fuse, resample_masks
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.competition import score_image
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from tests.detections.soft_discs import detections_of, scattered_discs

HEIGHT, WIDTH = 120, 160


def noisy_view(rng, discs, drop=0.15, false=4):
    """The discs as one imperfect model sees them: shifted, resized, some missed, some invented."""
    kept = discs[rng.uniform(size=len(discs)) > drop]
    seen = kept + rng.normal(0, [1.2, 1.2, 0.8], kept.shape)
    invented = np.stack(
        [rng.uniform(10, WIDTH - 10, false), rng.uniform(10, HEIGHT - 10, false), rng.uniform(4, 9, false)], axis=1
    )
    scores = [*rng.uniform(0.7, 1, len(seen)), *rng.uniform(0.5, 0.8, false)]
    return detections_of(np.concatenate([seen, invented]), scores, HEIGHT, WIDTH)


def competition_score(detections, truth):
    cells = postprocess(detections, PostprocessParams(score_thresholds=(0.45,)))
    return score_image([crop_to_coco(crop, HEIGHT, WIDTH) for crop in cells.crops], truth).score


def true_masks(discs):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return [crop_to_coco(MaskCrop.from_full(np.hypot(y - b, x - a) <= r), HEIGHT, WIDTH) for a, b, r in discs]


def assert_same(fused, expected):
    order = np.argsort(-expected.scores, kind="stable")
    assert len(fused) == len(expected)
    assert np.array_equal(fused.classes, expected.classes[order])
    assert np.allclose(fused.scores, expected.scores[order], atol=1e-6)
    assert np.allclose(fused.boxes, expected.boxes[order], atol=1e-4)
    if isinstance(expected.masks, np.ndarray):
        assert np.allclose(fused.masks, expected.masks[order], atol=1e-5)
    else:
        for crop, i in zip(fused.masks, order, strict=True):
            assert np.array_equal(crop.to_full(HEIGHT, WIDTH), expected.masks[i].to_full(HEIGHT, WIDTH))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    "params",
    [
        FusionParams(),
        FusionParams(compared="box", iou=0.55),
        FusionParams(boxes="best", absence=0),
        FusionParams(across_classes=True),
    ],
)
def test_copies_of_detections_give_them_back(count, binary, params):
    """Also where detections of one view overlap each other, as after a loose non-maximum suppression."""
    rng = np.random.default_rng(0)
    discs = scattered_discs(rng, 25, HEIGHT, WIDTH)
    discs = np.concatenate([discs, discs[:8] + rng.uniform(0.5, 2, (8, 3))])
    view = detections_of(discs, rng.uniform(0.1, 1, len(discs)), HEIGHT, WIDTH, rng.integers(0, 3, len(discs)))
    if binary:
        view = replace(view, masks=view.crops())
    assert_same(fuse([view] * count, params), view)


@pytest.mark.parametrize("seed", range(4))
def test_noisy_models_are_better_fused_and_worse_concatenated(seed):
    rng = np.random.default_rng(seed)
    discs = scattered_discs(rng, 30, HEIGHT, WIDTH)
    truth = true_masks(discs)
    views = [noisy_view(rng, discs) for _ in range(5)]
    single = np.mean([competition_score(view, truth) for view in views])
    fused = competition_score(fuse(views), truth)
    everything = Detections(
        HEIGHT,
        WIDTH,
        *(np.concatenate([getattr(view, name) for view in views]) for name in ("boxes", "scores", "classes", "masks")),
    )
    assert fused > single + 0.1
    assert competition_score(everything, truth) < single


def test_binary_masks_of_noisy_models_are_better_fused_too():
    rng = np.random.default_rng(7)
    discs = scattered_discs(rng, 30, HEIGHT, WIDTH)
    truth = true_masks(discs)
    views = [noisy_view(rng, discs) for _ in range(5)]
    binary = [replace(view, masks=view.crops()) for view in views]
    single = np.mean([competition_score(view, truth) for view in views])
    assert competition_score(fuse(binary), truth) > single + 0.1
    # One of the models may be of another kind.
    assert competition_score(fuse([binary[0], *views[1:]]), truth) > single + 0.1


def test_the_mean_of_two_binary_masks_lies_between_them():
    boxes = [(20, 30, 60, 50), (24, 30, 64, 54)]
    crops = [MaskCrop(y0, x0, np.ones((y1 - y0, x1 - x0), bool)) for x0, y0, x1, y1 in boxes]
    views = [
        Detections(HEIGHT, WIDTH, np.array([box], np.float32), np.ones(1), np.zeros(1, np.int64), [crop])
        for box, crop in zip(boxes, crops, strict=True)
    ]
    assert fuse(views).masks[0].box == (22, 30, 62, 52)
    assert fuse(views, weights=[3, 1]).masks[0].box == (21, 30, 61, 51)
    nothing = MaskCrop(0, 0, np.zeros((0, 0), bool))
    assert fuse([views[0], replace(views[1], masks=[nothing])], FusionParams(compared="box")).masks[0] is crops[0]


def test_the_order_of_views_does_not_matter():
    rng = np.random.default_rng(1)
    discs = scattered_discs(rng, 30, HEIGHT, WIDTH)
    views = [noisy_view(rng, discs) for _ in range(4)]
    weights = [1.0, 2.0, 0.5, 1.0]
    order = [2, 0, 3, 1]
    assert_same(fuse([views[i] for i in order], weights=[weights[i] for i in order]), fuse(views, weights=weights))


def test_views_count_by_class():
    """Of two views, one is three times as good for class 0 and knows nothing of class 1."""
    discs, scores = [(40, 40, 8), (90, 40, 8), (40, 90, 8), (90, 90, 8)], [0.9, 0.8, 0.6, 0.4]
    both = replace(detections_of(discs, scores, HEIGHT, WIDTH), classes=np.array([0, 1, 0, 1]))
    views = [both.select([0, 1]), both.select([0, 1, 2, 3])]
    fused = fuse(views, weights=np.array([[1.0, 1.0], [3.0, 0.0]]))
    assert fused.classes.tolist() == [0, 1, 0]
    # Seen by both; by the one that counts; by three quarters of what counts, to the power of 0.5.
    np.testing.assert_allclose(fused.scores, [0.9, 0.8, 0.6 * 0.75**0.5], rtol=1e-6)
    np.testing.assert_allclose(fused.boxes[1], both.boxes[1])
    noisy = [noisy_view(np.random.default_rng(seed), np.array(discs)) for seed in (0, 1)]
    assert_same(fuse(noisy, weights=np.array([[1.0], [3.0]])), fuse(noisy, weights=[1, 3]))


def test_boxes_and_masks_are_means_weighted_with_scores():
    views = [detections_of([(x, 40, 8)], [score], HEIGHT, WIDTH) for x, score in ((40, 0.9), (43, 0.3))]
    fused = fuse(views)
    expected = detections_of([(40.75, 40, 8)], [0.6], HEIGHT, WIDTH)
    assert np.allclose(fused.boxes, expected.boxes, atol=1e-4)
    assert fused.scores == pytest.approx([0.6])
    # The mean of two discs 3 px apart: within 1.5 px of the first, nearer to it than to the second.
    y, x = (axis + 0.5 for axis in np.mgrid[:HEIGHT, :WIDTH])
    mask = fused.crops()[0].to_full(HEIGHT, WIDTH)
    center = (x[mask].mean(), y[mask].mean())
    assert center == pytest.approx((40.3, 40), abs=0.5)
    best = fuse(views, FusionParams(boxes="best"))
    assert np.array_equal(best.boxes, views[0].boxes)


def test_a_view_that_did_not_see_a_cell_lowers_its_score():
    seen = detections_of([(40, 40, 8)], [0.8], HEIGHT, WIDTH)
    views = [seen, seen, seen.select([]), seen.select([])]
    assert fuse(views, FusionParams(absence=1)).scores == pytest.approx([0.4])
    assert fuse(views, FusionParams(absence=0.5)).scores == pytest.approx([0.8 * 0.5**0.5])
    assert fuse(views, FusionParams(absence=0)).scores == pytest.approx([0.8])
    assert fuse(views, FusionParams(absence=1), [3, 3, 1, 1]).scores == pytest.approx([0.6])
    assert len(fuse([seen.select([])] * 3)) == 0


def test_classes_are_kept_apart_unless_they_may_mix():
    views = [detections_of([(40, 40, 8)], [s], HEIGHT, WIDTH, [c]) for s, c in ((0.6, 0), (0.5, 2), (0.4, 2))]
    apart = fuse(views)
    assert sorted(apart.classes.tolist()) == [0, 2]
    together = fuse(views, FusionParams(across_classes=True))
    assert together.classes.tolist() == [2]
    assert together.scores == pytest.approx([0.5])


def test_neighbours_are_not_merged_though_their_boxes_overlap():
    """Two parallel diagonal cells: boxes with IoU 0.7, masks without a shared pixel."""
    size = 28
    rows, columns = np.mgrid[:size, :size]
    line = (np.abs(rows - columns) <= 2).astype(np.float32)
    boxes = np.array([[20, 20, 60, 60], [27, 20, 67, 60]], np.float32)
    masks = np.stack([line, line])
    view = Detections(HEIGHT, WIDTH, boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), masks)
    one, other = view.select([0]), view.select([1])
    assert len(fuse([one, other])) == 2
    assert len(fuse([one, other], FusionParams(compared="box"))) == 1
    assert len(fuse([one, view, other])) == 2


def test_a_cell_that_one_view_missed_does_not_take_its_neighbour_s_detection():
    """Cell b is nearer to its own detection in the other view than cell a is, though both would do."""
    a, b = (40, 40, 8), (44, 40, 8)
    both = detections_of([a, b], [0.9, 0.7], HEIGHT, WIDTH)
    only_b = detections_of([(44.5, 40, 8)], [0.95], HEIGHT, WIDTH)
    fused = fuse([both, only_b], FusionParams(absence=1))
    assert sorted(fused.scores.round(3).tolist()) == pytest.approx([0.45, 0.825])
    assert fused.boxes[0, 0] == pytest.approx(44.5 * 0.95 / 1.65 + 44 * 0.7 / 1.65 - 9, abs=1e-3)


def test_grids_of_different_sizes_go_together():
    fine = detections_of([(40, 40, 10)], [0.9], HEIGHT, WIDTH, size=56)
    coarse = detections_of([(40, 40, 10)], [0.9], HEIGHT, WIDTH, size=28)
    fused = fuse([coarse, fine])
    assert fused.masks.shape == (1, 56, 56)
    mask, expected = (d.crops()[0].to_full(HEIGHT, WIDTH) for d in (fused, fine))
    assert np.count_nonzero(mask ^ expected) <= 0.03 * np.count_nonzero(expected)


def test_masks_resampled_to_another_box_stay_where_they_are():
    box, new = np.array([[10.0, 20, 38, 48]]), np.array([[7.5, 21, 40, 52]])
    mask = np.array([[[1.0]]]) * np.linspace(0, 1, 28)[None, None, :].astype(np.float32).repeat(28, 1)
    moved = resample_masks(mask.astype(np.float32), box, new, 28)
    xs = new[0, 0] + (np.arange(28) + 0.5) / 28 * 32.5  # pixels at the new grid's centres
    inside = (xs > 10.5) & (xs < 37.5)
    # The ramp is linear in x, and so is the interpolation between centres.
    assert np.allclose(moved[0, 5, inside], (xs[inside] - 10.5) / 27, atol=1e-5)
    assert (moved[0, :, xs < 9.4] == 0).all()


def test_eight_views_of_800_cells_are_fast():
    rng = np.random.default_rng(2)
    x, y = np.meshgrid(np.arange(32), np.arange(25))
    discs = np.stack([x.ravel() * 21 + 12.0, y.ravel() * 20 + 12.0, np.full(800, 8.0)], axis=1)
    views = [
        detections_of(discs + rng.normal(0, 0.7, discs.shape), rng.uniform(0.5, 1, 800), 520, 704) for _ in range(8)
    ]
    fuse(views[:2])
    start = process_time()
    fused = fuse(views)
    assert process_time() - start < 2  # 0.45 s, measured on one core
    assert len(fused) == 800


def test_bad_input_is_one_sentence():
    view = detections_of([(40, 40, 8)], [0.9], HEIGHT, WIDTH)
    with pytest.raises(CellSegError, match="at least one"):
        fuse([])
    with pytest.raises(CellSegError, match="120 × 160 and 120 × 161"):
        fuse([view, replace(view, width=161)])
    for weights in ([1.0], [1.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(CellSegError, match="2 views need as many positive weights"):
            fuse([view, view], weights=weights)
    for weights, said in {
        ((1.0, -1.0), (1.0, 1.0)): "2 views need as many positive weights",
        ((0.0, 1.0), (0.0, 1.0)): "no view counts for class 0",
    }.items():
        with pytest.raises(CellSegError, match=said):
            fuse([view, view], weights=np.array(weights))
    second = replace(view, classes=np.array([1]))
    with pytest.raises(CellSegError, match="for 1 classes, but detections have 2"):
        fuse([view, second], weights=np.ones((2, 1)))
    for wrong in ({"iou": 0}, {"iou": 1.5}, {"compared": "hue"}, {"boxes": "all"}, {"absence": -1}):
        with pytest.raises(CellSegError):
            FusionParams(**wrong)
