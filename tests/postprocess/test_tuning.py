"""The search finds optima that are known, and its cross-validation tells a gain from luck."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.competition import score_image
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from cellseg_d2.postprocess.tuning import SearchSpace, expand, search, space_of, tune
from cellseg_d2.postprocess.tuning_image import ImageTrials

HEIGHT, WIDTH = 60, 80
ONLY_SCORES = space_of(["score_thresholds"])


def square(index, size=6):
    """Squares on a lattice, which never overlap."""
    return MaskCrop(10 * (index // 8), 10 * (index % 8), np.ones((size, size), bool))


def detections(crops, scores, classes=0):
    count = len(crops)
    boxes = np.array([crop.box for crop in crops], np.float32).reshape(-1, 4)
    classes = np.full(count, classes) if np.ndim(classes) == 0 else np.array(classes)
    return Detections(HEIGHT, WIDTH, boxes, np.array(scores, np.float32), classes.astype(np.int64), crops)


def soft_scene(generator, count=40):
    """Overlapping soft detections of two classes, and true cells near some of them."""
    low = generator.uniform(0, [WIDTH - 14, HEIGHT - 14], (count, 2))
    boxes = np.concatenate([low, low + generator.uniform(6, 14, (count, 2))], axis=1).astype(np.float32)
    masks = generator.uniform(0.2, 1, (count, 14, 14)).astype(np.float32)
    found = Detections(
        HEIGHT, WIDTH, boxes, generator.uniform(0, 1, count).astype(np.float32), generator.integers(0, 2, count), masks
    )
    truth = [crop for crop in found.select(np.arange(0, count, 2)).crops(0.35) if crop.area]
    return found, truth


def random_params(generator):
    pick = generator.choice
    return PostprocessParams(
        score_thresholds=pick([0.0, 0.1, 0.4], 2), mask_thresholds=pick([0.3, 0.5, 0.6], 2),
        min_areas=pick([0, 20, 60], 2), min_area_share=pick([0.0, 0.4]), doubtful_areas=pick([0, 50, 150], 2),
        mask_thresholding=str(pick(["fixed", "dice"])), ranking=str(pick(["box", "box*mask"])),
        mask_offset=pick([-0.6, 0.0, 0.25], 2), nms_iou=pick([0.3, 1.0]), nms_containment=pick([0.6, 1.0]),
        overlap_policy=str(pick(["score", "smaller", "larger"])),
        fill_holes=bool(pick(2)), largest_component=bool(pick(2)), vote=bool(pick(2)),
    )  # fmt: skip


def test_a_trial_scores_what_would_be_submitted():
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(4):
        found, truth = soft_scene(generator)
        trials = ImageTrials(found, truth)
        rles = [crop_to_coco(crop, HEIGHT, WIDTH) for crop in truth]
        for _ in range(40):
            params = random_params(generator)
            cells = postprocess(found, params)
            expected = score_image([crop_to_coco(crop, HEIGHT, WIDTH) for crop in cells.crops], rles).score
            assert trials.score(params) == pytest.approx(expected, abs=1e-12), params
            seen.add(round(expected, 6))
    assert len(seen) > 60


def test_many_cells_are_compared_without_a_table_of_all_pairs():
    """Which for 40,000 cells would be of 12 GB."""
    count, side = 40_000, 1000
    crops = [MaskCrop(5 * (i // 200), 5 * (i % 200), np.ones((4, 4), bool)) for i in range(count)]
    boxes = np.array([crop.box for crop in crops], np.float32)
    scores = np.full(count, 0.9, np.float32)
    found = Detections(side, side, boxes, scores, np.zeros(count, np.int64), crops)
    # All but each fourth are found: 3 of 4 with 12 of 16 pixels, an IoU beyond five of the ten thresholds.
    truth = [
        MaskCrop(c.top, c.left + 4, c.mask[:, :1]) if i % 4 == 3 else MaskCrop(c.top, c.left, c.mask[:3])
        for i, c in enumerate(crops)
    ]
    trials = ImageTrials(found, truth)
    tracemalloc.start()
    score = trials.score(PostprocessParams())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    hit = 0.75 * count
    assert score == pytest.approx(0.5 * hit / (2 * count - hit))
    assert peak < 5e8


def test_a_trial_without_detections_or_truth():
    params = PostprocessParams()
    assert ImageTrials(detections([], []), []).score(params) == 1
    assert ImageTrials(detections([], []), [square(0)]).score(params) == 0
    assert ImageTrials(detections([square(0)], [0.9]), []).score(params) == 0
    assert ImageTrials(detections([square(0)], [0.4]), []).score(params) == 1


def typed_images(generator, count=12):
    """Class 0 is right above 0.7, class 1 above 0.3; what is below is wrong. The type alternates."""
    images, types = {}, {}
    for i in range(count):
        kind = i % 2
        border = (0.7, 0.3)[kind]
        scores = generator.uniform(0.02, 0.98, 30)
        scores = scores[np.abs(scores - border) > 0.04]
        crops = [square(j) for j in range(len(scores))]
        truth = [crop for crop, score in zip(crops, scores, strict=True) if score > border]
        images[f"image{i}"] = ImageTrials(detections(crops, scores, kind), truth)
        types[f"image{i}"] = ("round", "thin")[kind]
    return images, types


def test_score_thresholds_of_each_type_are_found():
    images, types = typed_images(np.random.default_rng(1))
    result = tune(images, 3, types=types, folds=3)
    assert 0.65 <= result.params.score_thresholds[0] <= 0.75
    assert 0.25 <= result.params.score_thresholds[1] <= 0.35
    assert result.params.score_thresholds[2] == 0.5, "no image has the third class: it keeps its value"
    assert (result.fitted == 1).all()
    assert (result.held_out == 1).all()
    rows = {row.cell_type: row for row in result.rows()}
    assert set(rows) == {"round", "thin", "all"}
    assert rows["round"].images == 6
    assert rows["all"].default == pytest.approx(np.mean([images[name].score(PostprocessParams()) for name in images]))
    assert rows["all"].gain == pytest.approx(1 - rows["all"].default)
    assert rows["thin"].spread >= 0
    assert "score_thresholds, thin" in result.changes(["round", "thin", "flat"])
    assert "held-out gain" in result.table()
    # Whatever nothing depends on stays as it was.
    assert result.params == replace(expand(PostprocessParams(), 3), score_thresholds=result.params.score_thresholds)


@pytest.mark.parametrize(("right", "down"), [(-0.25, 0.5), (0.0, -0.75)])
def test_an_offset_of_all_annotations_is_found(right, down):
    generator = np.random.default_rng(5)
    images = []
    for _ in range(6):
        found, _ = soft_scene(generator)
        truth = [crop for crop in found.moved(right, down).crops(0.5) if crop.area]
        images.append(ImageTrials(found, truth))
    params = search(images, PostprocessParams(), 2, space_of(["mask_offset"]))
    assert params.mask_offset == (right, down)
    assert np.mean([image.score(params) for image in images]) > np.mean(
        [image.score(PostprocessParams()) for image in images]
    )


def test_classes_are_tuned_apart_within_an_image_where_nothing_is_voted():
    generator = np.random.default_rng(2)
    images = []
    for _ in range(6):
        kinds = generator.integers(0, 2, 40)
        borders = np.where(kinds == 0, 0.7, 0.3)
        scores = generator.uniform(0.02, 0.98, 40)
        keep = np.abs(scores - borders) > 0.04
        crops = [crop for crop, own in zip(map(square, range(40)), keep, strict=True) if own]
        truth = [crop for crop, right in zip(crops, (scores > borders)[keep], strict=True) if right]
        images.append(ImageTrials(detections(crops, scores[keep], kinds[keep]), truth))
    params = search(images, PostprocessParams(vote=False), 2)
    assert np.mean([image.score(params) for image in images]) == 1
    assert params.score_thresholds == pytest.approx((0.7, 0.3), abs=0.051)


def test_the_mask_threshold_is_found():
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    cone = (1.0 - 0.8 * np.hypot(x, y)).clip(0, 1).astype(np.float32)
    images = []
    for i in range(4):
        boxes = np.array([[2 + i, 3, 34 + i, 35], [36 + i, 10, 70 + i, 52]], np.float32)
        found = Detections(HEIGHT, WIDTH, boxes, np.full(2, 0.9), np.zeros(2, np.int64), np.stack([cone, cone]))
        images.append(ImageTrials(found, found.crops(0.35)))
    params = search(images, PostprocessParams(), 1)
    assert params.mask_thresholds == (0.35,)
    assert np.mean([image.score(params) for image in images]) == 1


def test_containment_minimum_area_and_policy_are_found():
    def scene(crops, scores, truth):
        return ImageTrials(detections(crops, scores), truth)

    whole, part = MaskCrop(0, 0, np.ones((20, 20), bool)), MaskCrop(0, 0, np.ones((20, 11), bool))
    # A half of the cell, detected with less confidence and preferred by the policy, takes its pixels.
    start = PostprocessParams(overlap_policy="smaller")
    only = replace(ONLY_SCORES, score_thresholds=(), nms_containment=SearchSpace().nms_containment)
    fragments = [scene([whole, part], [0.9, 0.8], [whole])]
    assert search(fragments, start, 1, only).nms_containment < 1
    assert fragments[0].score(search(fragments, start, 1, only)) == 1

    crumbs = [scene([whole, square(44, 4)], [0.9, 0.9], [whole])]
    only = replace(ONLY_SCORES, score_thresholds=(), min_areas=SearchSpace().min_areas)
    found = search(crumbs, PostprocessParams(), 1, only)
    assert 16 < found.min_areas[0] <= 400

    inside = MaskCrop(5, 5, np.ones((8, 8), bool))
    around = MaskCrop(0, 0, ~inside.to_full(20, 20))
    only = replace(ONLY_SCORES, score_thresholds=(), overlap_policy=SearchSpace().overlap_policy)
    nested = [scene([whole, inside], [0.9, 0.8], [around, inside])]
    assert search(nested, PostprocessParams(), 1, only).overlap_policy == "smaller"


def test_ranking_is_tried_together_with_its_thresholds():
    """Sure masks are right; box scores say nothing."""
    generator = np.random.default_rng(5)
    images = []
    for _ in range(8):
        right = generator.uniform(size=30) < 0.5
        crops = [square(j) for j in range(30)]
        boxes = np.array([crop.box for crop in crops], np.float32)
        masks = np.repeat(np.where(right, 0.98, 0.6)[:, None, None], 28, 1).repeat(28, 2).astype(np.float32)
        found = Detections(HEIGHT, WIDTH, boxes, generator.uniform(0.8, 1, 30), np.zeros(30, np.int64), masks)
        images.append(ImageTrials(found, [crop for crop, own in zip(found.crops(), right, strict=True) if own]))
    params = search(images, PostprocessParams(), 1, replace(ONLY_SCORES, ranking=SearchSpace().ranking))
    assert params.ranking == "box*mask"
    assert 0.6 < params.score_thresholds[0] < 0.79
    assert np.mean([image.score(params) for image in images]) == 1


def test_outlines_by_expected_dice_are_tried_together_with_their_thresholds():
    """Half of the masks are half as sure of the same outlines, so that no fixed threshold draws both."""
    ramp = np.clip(1.2 - np.hypot(*(np.mgrid[:28, :28] - 13.5)) / 14, 0, 0.95).astype(np.float32)
    boxes = np.array([[30 * (j % 2), 0, 30 * (j % 2) + 28, 28] for j in range(2)], np.float32)
    found = Detections(HEIGHT, WIDTH, boxes, np.ones(2, np.float32), np.zeros(2, np.int64), np.stack([ramp, ramp / 2]))
    wanted = PostprocessParams(mask_thresholding="dice")
    truth = postprocess(found, wanted).crops
    fixed = search([ImageTrials(found, truth)], PostprocessParams(), 1, space_of(["mask_thresholds"]))
    both = search([ImageTrials(found, truth)], fixed, 1, space_of(["mask_thresholds", "mask_thresholding"]))
    assert (both.mask_thresholding, both.mask_thresholds) == ("dice", (0.5,))
    assert ImageTrials(found, truth).score(fixed) < ImageTrials(found, truth).score(both) == 1


def test_on_pure_noise_the_held_out_gain_is_nothing_and_the_fitted_gain_is_not():
    """A detection is right or wrong by the toss of a coin, so on average every threshold scores ½."""
    generator = np.random.default_rng(6)
    fitted, held_out = [], []
    for repeat in range(24):
        images = {}
        for i in range(60):
            truth = [square(0)] if generator.uniform() < 0.5 else []
            images[f"{i}"] = ImageTrials(detections([square(0)], generator.uniform(0.02, 0.98, 1)), truth)
        result = tune(images, 1, space=ONLY_SCORES, folds=5, seed=repeat)
        fitted.append(result.fitted.mean() - result.default.mean())
        held_out.append(result.rows()[-1].gain)
        assert fitted[-1] >= 0
    assert np.mean(fitted) > 0.05
    assert abs(np.mean(held_out)) < 0.04
    assert np.std(held_out, ddof=1) / np.sqrt(len(held_out)) < 0.02


def test_the_search_keeps_to_its_trials_and_never_ends_worse():
    generator = np.random.default_rng(8)
    images = [ImageTrials(*soft_scene(generator)) for _ in range(3)]
    start = expand(PostprocessParams(), 2)
    before = np.mean([image.score(start) for image in images])
    scores = []
    for trials in (1, 30, 100, 2000):
        counted = []
        params = search(images, start, 2, trials=trials, on_trial=lambda: counted.append(1))  # noqa: B023
        assert len(counted) <= trials
        scores.append(np.mean([image.score(params) for image in images]))
        assert params.vote
    assert scores[0] == before
    assert scores[-1] > before + 0.05
    assert scores[-1] >= scores[1] >= before


def test_groups_are_held_out_together_and_the_seed_decides():
    images, types = typed_images(np.random.default_rng(3), 12)
    groups = {name: f"well{i // 4}" for i, name in enumerate(images)}
    result = tune(images, 2, types=types, groups=groups, space=ONLY_SCORES, folds=3)
    for well in range(3):
        assert (
            len({fold for name, fold in zip(result.names, result.folds, strict=True) if groups[name] == f"well{well}"})
            == 1
        )
    again, other = (tune(images, 2, types=types, space=ONLY_SCORES, folds=3, seed=seed) for seed in (0, 1))
    assert again.folds.tolist() == tune(images, 2, types=types, space=ONLY_SCORES, folds=3).folds.tolist()
    assert again.folds.tolist() != other.folds.tolist()
    with pytest.raises(CellSegError, match="too few for 4 folds"):
        tune(images, 2, groups=groups, folds=4)
    with pytest.raises(CellSegError, match="at least 2 folds"):
        tune(images, 2, folds=1)


def test_a_search_can_be_confined_to_some_parameters():
    generator = np.random.default_rng(3)
    images = [ImageTrials(*soft_scene(generator)) for _ in range(3)]
    start = expand(PostprocessParams(), 2)
    found = search(images, start, 2, space_of(["overlap_policy", "mask_thresholds"]))
    assert found != start
    assert found == replace(start, overlap_policy=found.overlap_policy, mask_thresholds=found.mask_thresholds)
    with pytest.raises(CellSegError, match=r"'mask_threshold' is not one of .*mask_thresholds"):
        space_of(["mask_threshold"])
