"""Cells from ideal fields, and from fields with errors."""

import time

import numpy as np
import pytest

from cellseg_d2.masks.flow_instances import follow_flows
from cellseg_d2.masks.flows import flow_field
from tests.shapes import arc, crowd, disc, star

SHAPES = {
    "disc": disc(160, 80, 80, 40),
    "small disc": disc(160, 20, 20, 2),
    "star": star(160, 80, 80, 6, 70, 5),
    "thin star": star(160, 80, 80, 7, 70, 3),
    "arc": arc(160, 80, 80, 60, 7, 2.6),
    "line": np.pad(np.ones((3, 150), bool), ((40, 117), (5, 5))),
    "diagonal": np.eye(160, dtype=bool) | np.eye(160, k=1, dtype=bool) | np.eye(160, k=-1, dtype=bool),
    "square": np.pad(np.ones((31, 31), bool), ((0, 129), (129, 0))),
}


def best_iou(labels, found):
    """The IoU of each true cell with the one found that fits it best."""
    best = []
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        candidates = np.unique(found[mask])
        best.append(max((mask & (found == c)).sum() / (mask | (found == c)).sum() if c else 0 for c in candidates))
    return np.array(best)


@pytest.mark.parametrize("name", SHAPES)
def test_ideal_fields_give_the_cells_back(name):
    labels = SHAPES[name].astype(np.int32)
    found = follow_flows(flow_field(labels), labels > 0, min_pixels=5)
    assert best_iou(labels, found).min() >= 0.98
    assert found.max() == 1


def test_touching_cells_are_told_apart():
    labels = crowd(200, 150, 14)
    found = follow_flows(flow_field(labels), labels > 0, min_pixels=5)
    large = [label for label in range(1, 151) if (labels == label).sum() >= 20]
    kept = np.where(np.isin(labels, large), labels, 0)
    iou = best_iou(kept, found)
    assert len(iou) > 100
    assert iou.min() >= 0.98
    assert (found > 0).sum() >= (kept > 0).sum()


def test_noise_does_not_tear_cells_apart():
    rng = np.random.default_rng(0)
    labels = np.where(disc(128, 40, 40, 25), 1, 0) + np.where(star(128, 90, 85, 4, 35, 5), 2, 0)
    field = flow_field(labels) + rng.normal(0, 0.4, (2, 128, 128)).astype(np.float32)
    found = follow_flows(field, labels > 0, min_pixels=10)
    assert best_iou(labels, found).min() > 0.9


def test_small_cells_are_background():
    labels = np.where(disc(60, 15, 15, 8), 1, 0) + np.where(disc(60, 45, 45, 2), 2, 0)
    field = flow_field(labels)
    assert set(np.unique(follow_flows(field, labels > 0))) == {0, 1, 2}
    found = follow_flows(field, labels > 0, min_pixels=50)
    assert found.max() == 1
    assert not found[labels == 2].any()


def test_a_field_of_nothing_leaves_pixels_where_they_are():
    inside = np.zeros((20, 20), bool)
    inside[5, 5] = inside[15, 10:13] = True
    found = follow_flows(np.zeros((2, 20, 20), np.float32), inside)
    assert found.max() == 2
    assert (found > 0).sum() == 4
    assert not follow_flows(np.zeros((2, 20, 20), np.float32), np.zeros((20, 20), bool)).any()


def test_it_turns_with_the_image():
    labels = crowd(100, 30, 13)
    found = follow_flows(flow_field(labels), labels > 0, min_pixels=5)
    for turn in (lambda i: i[:, ::-1], lambda i: i[::-1], np.rot90):
        turned = np.ascontiguousarray(turn(labels))
        again = follow_flows(flow_field(turned), turned > 0, min_pixels=5)
        assert best_iou(turn(found), again).min() > 0.98


def test_an_image_of_the_competition_takes_little():
    labels = crowd(700, 800, 11)[:520]
    field = flow_field(labels)
    start = time.process_time()
    found = follow_flows(field, labels > 0, min_pixels=5)
    assert time.process_time() - start < 1.0  # measured: 0.02
    assert found.max() > 400
