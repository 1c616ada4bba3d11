"""From detections to cells, on rectangles whose result can be told in advance."""

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.detections import Detections
from cellseg_d2.inference.postprocess import PostprocessParams, postprocess, vote_class
from cellseg_d2.masks import MaskCrop


def rectangles(*boxes, scores, classes=None):
    crops = [MaskCrop(y0, x0, np.ones((y1 - y0, x1 - x0), bool)) for x0, y0, x1, y1 in boxes]
    classes = np.zeros(len(crops), np.int64) if classes is None else np.array(classes)
    return Detections(50, 60, np.array(boxes, np.float32).reshape(-1, 4), np.array(scores), classes, crops)


def test_the_better_score_keeps_the_contested_pixels():
    cells = postprocess(rectangles((0, 0, 10, 10), (5, 0, 15, 10), scores=[0.6, 0.9]), PostprocessParams())
    assert cells.scores.tolist() == [0.9, 0.6]
    assert [crop.box for crop in cells.crops] == [(5, 0, 15, 10), (0, 0, 5, 10)]


def test_the_smaller_mask_keeps_the_contested_pixels():
    params = PostprocessParams(overlap_policy="smaller")
    cells = postprocess(rectangles((0, 0, 20, 20), (5, 5, 8, 8), scores=[0.9, 0.6]), params)
    assert [crop.area for crop in cells.crops] == [400 - 9, 9]


def test_no_pixel_is_given_twice():
    generator = np.random.default_rng(3)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in generator.integers(1, 20, (40, 4))]
    cells = postprocess(rectangles(*boxes, scores=generator.uniform(0.5, 1, 40)), PostprocessParams())
    assert sum(crop.to_full(50, 60).astype(int) for crop in cells.crops).max() == 1


def test_a_cell_that_lost_all_its_pixels_is_gone():
    cells = postprocess(rectangles((0, 0, 10, 10), (2, 2, 8, 8), scores=[0.9, 0.6]), PostprocessParams())
    assert len(cells) == 1


def test_the_vote_decides_the_type_and_its_thresholds():
    detections = rectangles((0, 0, 5, 5), (10, 0, 15, 5), (20, 0, 25, 5), scores=[0.5, 0.6, 0.95], classes=[0, 0, 1])
    assert vote_class(detections) == 0
    params = PostprocessParams(score_thresholds=(0.55, 0.99))
    assert postprocess(detections, params).classes.tolist() == [0, 0]
    alone = PostprocessParams(score_thresholds=(0.55, 0.9), vote=False)
    assert postprocess(detections, alone).classes.tolist() == [1, 0]


def test_minimum_areas_count_what_is_left_after_overlaps():
    detections = rectangles((0, 0, 10, 10), (5, 0, 15, 10), scores=[0.6, 0.9])
    assert len(postprocess(detections, PostprocessParams(min_areas=(51,)))) == 1
    assert len(postprocess(detections, PostprocessParams(min_areas=(50,)))) == 2


def test_nothing_detected_gives_no_cells():
    empty = Detections(5, 6, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 28, 28), np.float32))
    assert len(postprocess(empty, PostprocessParams())) == 0
    assert vote_class(empty) is None


def test_too_few_thresholds_are_an_error():
    with pytest.raises(CellSegError, match="2 values"):
        postprocess(rectangles((0, 0, 5, 5), scores=[0.9], classes=[2]), PostprocessParams(score_thresholds=(0.1, 0.2)))
