"""From maps to detections: drawn cells with ideal maps, and what is wrong with others."""

from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.detections.dense import DenseMaps, DenseParams, maps_to_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.flows import flow_field
from tests.shapes import crowd, disc, star


def ideal(labels, classes=None, stride=1, probability=0.9):
    classes = np.zeros(labels.max() + 1, int) if classes is None else np.concatenate([[0], classes])
    kinds = np.eye(classes.max() + 1, dtype=np.float32)[classes[labels]].transpose(2, 0, 1)
    return DenseMaps(stride, np.where(labels > 0, probability, 0.02).astype(np.float32), flow_field(labels), kinds)


def iou(mask, crop):
    other = MaskCrop(crop.top, crop.left, crop.mask).to_full(*mask.shape)
    return (mask & other).sum() / (mask | other).sum()


def test_ideal_maps_give_the_cells_back():
    masks = [disc(120, 30, 30, 14), disc(120, 30, 60, 16), star(120, 85, 80, 5, 32, 5)]
    labels = sum((mask * np.int32(i) for i, mask in enumerate(masks, 1)), np.zeros((120, 120), np.int32))
    found = maps_to_detections(ideal(labels, np.array([2, 0, 1])), 120, 120)
    assert len(found) == 3
    assert sorted(found.classes.tolist()) == [0, 1, 2]
    for crop, kind in zip(found.crops(), found.classes, strict=True):
        truth = masks[{2: 0, 0: 1, 1: 2}[int(kind)]]
        assert iou(truth, crop) >= (
            0.98 if kind != 1 else 0.9
        )  # of branches, three pixels wide, the grid loses a little
    assert found.scores == pytest.approx(0.9, abs=0.05)
    assert found.scores.dtype == found.boxes.dtype == found.masks.dtype == np.float32


def test_maps_of_another_stride_are_in_pixels_of_the_image():
    labels = disc(40, 20, 12, 9).astype(np.int32)
    found = maps_to_detections(ideal(labels, stride=2), 80, 80)
    assert found.boxes.tolist() == [[6, 22, 44, 60]]
    assert (found.height, found.width) == (80, 80)
    assert iou(np.kron(labels, np.ones((2, 2))) > 0, found.crops()[0]) > 0.98


def test_touching_cells_stay_apart():
    labels = crowd(160, 60, 13)
    found = maps_to_detections(ideal(labels), 160, 160)
    large = [label for label in range(1, 61) if (labels == label).sum() >= 40]
    crops = found.crops()
    best = [max(iou(labels == label, crop) for crop in crops) for label in large]
    assert min(best) > 0.85
    assert np.mean(best) > 0.95


def test_a_short_field_costs_the_score():
    labels = disc(60, 30, 30, 20).astype(np.int32)
    maps = ideal(labels)
    sure, unsure = (
        maps_to_detections(replace(maps, flow=length * maps.flow), 60, 60).scores
        for length in (np.float32(1), np.float32(0.5))
    )
    assert sure == pytest.approx(0.9, abs=0.01)
    assert unsure == pytest.approx(sure / 2, abs=0.01)


def test_a_field_that_does_not_fit_costs_the_cell():
    labels = disc(60, 30, 30, 20).astype(np.int32)
    maps = ideal(labels)
    noise = np.random.default_rng(0).normal(0, 0.4, maps.flow.shape).astype(np.float32)
    noisy = replace(maps, flow=maps.flow + noise)
    assert len(maps_to_detections(noisy, 60, 60, DenseParams(max_flow_error=1.0))) == 1
    assert len(maps_to_detections(noisy, 60, 60, DenseParams(max_flow_error=0.1))) == 0


@pytest.mark.parametrize("threshold", [0.0, 1.0, float("nan")])
def test_a_threshold_that_separates_nothing_is_refused(threshold):
    with pytest.raises(CellSegError, match=r"the foreground's threshold is .+; it must be above 0 and below 1"):
        DenseParams(threshold=threshold)


def test_the_best_are_kept_and_come_first():
    labels = crowd(160, 40, 10)
    maps = ideal(labels)
    ramp = np.linspace(0.5, 1, 160, dtype=np.float32)[None] * maps.foreground
    maps = DenseMaps(1, ramp, maps.flow, maps.classes)
    found = maps_to_detections(maps, 160, 160)
    few = maps_to_detections(maps, 160, 160, DenseParams(limit=5))
    assert (np.diff(found.scores) <= 0).all()
    assert np.array_equal(few.scores, found.scores[:5])
    assert np.array_equal(few.boxes, found.boxes[:5])


def test_nothing_of_nothing():
    found = maps_to_detections(ideal(np.zeros((30, 40), np.int32)), 30, 40)
    assert len(found) == 0
    assert found.masks.shape == (0, 56, 56)
    assert found.boxes.shape == (0, 4)
    assert found.crops() == []
