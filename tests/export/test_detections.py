"""Detections before any threshold, in files that tuning reads."""

from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.detections.saved import load_many
from cellseg_d2.errors import CellSegError
from tests.inference.segmentations import CLASS_NAMES, difficult_crops, segmentation_of


def test_detections_come_back(tmp_path):
    full, empty = segmentation_of(difficult_crops(), name="plate 1/A5"), segmentation_of([], name="b")
    paths = [path for one in (full, empty) for path in one.save(tmp_path, ["detections"])]
    assert [path.name for path in paths] == ["plate 1_A5_detections.npz", "b_detections.npz"]
    raw = load_many(paths)
    assert raw.class_names == list(CLASS_NAMES)
    assert list(raw.images) == ["plate 1/A5", "b"]
    assert len(raw.images["b"]) == 0
    read = raw.images["plate 1/A5"]
    for name in ("height", "width", "boxes", "scores", "classes"):
        assert np.array_equal(getattr(read, name), getattr(full.detections, name)), name
    for crop, own in zip(read.crops(), difficult_crops(), strict=True):
        assert crop.box == own.box
        assert np.array_equal(crop.mask, own.mask)


def test_what_was_not_kept_cannot_be_written(tmp_path):
    with pytest.raises(CellSegError, match=r"detections that a was made of were not kept: .*keep_detections=True"):
        replace(segmentation_of([]), detections=None).save(tmp_path / "out", ["detections"])
    assert not (tmp_path / "out").exists()
