"""What is chosen for a training, from images of squares whose sizes are known."""

import math

import numpy as np
import pytest

from cellseg_d2.correction.plan import make_plan
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop

KNOWN = 24.0  # pixels of the network's input


def record(name, *sides, group=None, ignore=None):
    cells = [CellAnnotation(MaskCrop(0, 0, np.ones((side, side), bool)), "cell") for side in sides]
    return ImageRecord(name, f"{name}.png", 100, 100, "cell", group, cells, None, ignore)


def diameter(side):
    return 2 * side / math.sqrt(math.pi)


@pytest.mark.parametrize(("images", "parts"), [(1, 0), (2, 2), (7, 2), (8, 1), (40, 1)])
def test_each_image_is_scored_by_a_model_that_has_not_seen_it(images, parts):
    names = [f"image{i}" for i in range(images)]
    plan = make_plan([record(name, 20) for name in names], KNOWN)
    assert len(plan.parts) == parts
    assert plan.cross_validated == (parts != 1)
    for part in plan.parts:
        assert sorted([*part.train, *part.val]) == sorted(names)
    if parts == 2:
        assert sorted(name for part in plan.parts for name in part.val) == names
    if parts == 1:
        assert len(plan.parts[0].val) == round(images / 4)
    assert make_plan([record(name, 20) for name in names], KNOWN) == plan
    assert all(isinstance(sentence, str) for sentence in plan.sentences())


@pytest.mark.parametrize("images", [3, 6, 7, 8, 12])
def test_each_training_has_cells_to_learn_from(images):
    """Two images have cells; all others are known to be empty."""
    records = [record(f"image{i}", *([20] if i < 2 else [])) for i in range(images)]
    for seed in range(5):
        for folds in (None, 1, 2, 3):
            for part in make_plan(records, KNOWN, folds=folds, seed=seed).parts:
                assert {"image0", "image1"} & set(part.train)
    one = records[1:]
    assert make_plan(one, KNOWN).parts == ()
    for folds in (1, 2):
        with pytest.raises(CellSegError, match="annotate cells in another one, or give --folds 0"):
            make_plan(one, KNOWN, folds=folds)


def test_images_of_one_group_stay_together():
    records = [record(f"image{i}", 20, group="left" if i % 2 else "right") for i in range(6)]
    for part in make_plan(records, KNOWN).parts:
        assert len({int(name[-1]) % 2 for name in part.val}) == 1


def test_the_network_sees_cells_at_the_size_that_it_knows():
    plan = make_plan([record(f"image{i}", 20) for i in range(4)], KNOWN)
    assert plan.one_size == pytest.approx(diameter(20))
    low, high = plan.zoom
    assert math.sqrt(low * high) * diameter(20) == pytest.approx(KNOWN)
    assert low < KNOWN / diameter(20) < high
    # Of few images, or of different ones, all sizes are looked at.
    assert make_plan([record("a", 20)], KNOWN).one_size is None
    mixed = make_plan([record(f"image{i}", 10 if i else 20) for i in range(4)], KNOWN)
    assert mixed.one_size is None
    assert mixed.zoom[0] < KNOWN / diameter(20) < KNOWN / diameter(10) < mixed.zoom[1]
    assert mixed.diameters == pytest.approx((diameter(10), diameter(20)))


def test_small_cells_are_not_left_out():
    assert make_plan([record("a", *[6] * 20)], KNOWN).smallest == 18
    assert make_plan([record("a", *[6] * 19, 60)], KNOWN).smallest == 18


def test_more_images_are_trained_on_for_longer_and_users_decide():
    lengths = [make_plan([record(str(i), 20) for i in range(n)], KNOWN).iterations for n in (1, 4, 12, 100)]
    assert lengths == sorted(lengths)
    assert lengths[0] == lengths[1] < lengths[2] < lengths[3]
    records = [record(str(i), 20) for i in range(6)]
    chosen = make_plan(records, KNOWN, iterations=17, folds=3)
    assert (chosen.iterations, len(chosen.parts)) == (17, 3)
    assert make_plan(records, KNOWN, folds=0).parts == ()
    assert "no score is known" in " ".join(make_plan(records, KNOWN, folds=0).sentences())


def test_images_that_count_in_part_are_told():
    region = MaskCrop(0, 0, np.ones((5, 5), bool))
    plan = make_plan([record("a", 20), record("b", 20, ignore=region)], KNOWN)
    assert plan.partly == 1
    assert "1 of them annotated in part" in plan.sentences()[0]


@pytest.mark.parametrize(
    ("records", "folds", "message"),
    [
        ([], None, "no annotated image"),
        ([record("a")], None, "not one cell"),
        ([record("a", 20)], 2, "cannot be split"),
        ([record("a", 20), record("b", 20)], 3, "parts"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(records, folds, message):
    with pytest.raises(CellSegError, match=message):
        make_plan(records, KNOWN, folds=folds)
