"""Plausibility as a factor of scores."""

import numpy as np

from cellseg_d2.detections.detections import Detections
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.shape_space.weighing import weigh
from tests.shape_space.drawn import ellipse, with_line


def test_scores_are_multiplied_by_a_power_of_the_plausibility(space):
    rng = np.random.default_rng(8)
    masks = [ellipse(rng), with_line(rng), ellipse(rng), np.zeros((3, 3), bool)]
    scores = np.array([0.9, 0.9, 0.5, 0.8], np.float32)
    crops = [MaskCrop(5, 7, mask) for mask in masks]
    detections = Detections(200, 200, np.zeros((4, 4), np.float32), scores, np.zeros(4, np.int64), crops)
    weighed = weigh(detections, space, 0.5).scores
    assert np.allclose(weighed[[0, 2]], scores[[0, 2]] * space.plausibilities([masks[0], masks[2]]) ** 0.5)
    assert weighed[1] < weighed[0]
    assert 0 < weighed[3] < 1e-5
    assert weighed.dtype == np.float32
    assert np.array_equal(weigh(detections, space, 0).scores, scores)
    assert len(weigh(detections.select(np.zeros(0, np.int64)), space, 1)) == 0
