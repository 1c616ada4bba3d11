"""Detections to Detectron2's ``Instances`` and back."""

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.instances import to_detections, to_instances
from cellseg_d2.masks.crop import MaskCrop


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("soft", [True, False])
def test_there_and_back(count, soft):
    generator = np.random.default_rng(0)
    boxes = np.array([[i, 2 * i, i + 4, 2 * i + 3] for i in range(count)], np.float32).reshape(-1, 4)
    masks = generator.random((count, 7, 7), dtype=np.float32)
    if not soft:
        masks = [MaskCrop(2 * i, i, np.ones((3, 4), bool)) for i in range(count)]
    scores = generator.random(count, dtype=np.float32)
    given = Detections(12, 15, boxes, scores, generator.integers(0, 3, count), masks)
    found = to_detections(to_instances(given))
    assert (found.height, found.width) == (12, 15)
    for name in ("boxes", "scores", "classes"):
        assert np.array_equal(getattr(found, name), getattr(given, name))
        assert getattr(found, name).dtype == getattr(given, name).dtype
    if soft:
        assert np.array_equal(found.masks, given.masks)
    else:
        assert [crop.box for crop in found.masks] == [crop.box for crop in masks]
