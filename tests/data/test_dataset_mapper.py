"""Samples for training: image, masks and boxes stay together."""

import copy

import detectron2.data.transforms as T
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from cellseg_d2.data.catalog import register_folder
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.errors import CellSegError
from tests.discs import write_disc_dataset


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    register_folder(write_disc_dataset(tmp_path_factory.mktemp("mapper"), name="mapped"))
    return DatasetCatalog.get("mapped_train")


def test_targets_follow_the_image(entries):
    augmentations = [
        T.RandomFlip(prob=1.0),
        T.RandomRotation([30, 30], expand=False),
        T.Resize((192, 192)),
        T.RandomCrop("absolute", (150, 130)),
    ]
    sample = CellDatasetMapper(True, augmentations=augmentations, channels=1)(entries[0])
    image, instances = sample["image"][0].numpy(), sample["instances"]
    assert sample["image"].shape == (1, 150, 130)
    assert len(instances) >= 2
    bright = image > 160
    covered = instances.gt_masks.tensor.numpy().any(axis=0)
    # The discs are the bright pixels; only their blurred rims may disagree.
    assert (bright & covered).sum() / (bright | covered).sum() > 0.85
    for box, mask in zip(instances.gt_boxes.tensor.numpy(), instances.gt_masks.tensor.numpy(), strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_an_image_without_cells_is_a_sample(entries):
    sample = CellDatasetMapper(True, augmentations=[])(entries[-1])
    assert len(sample["instances"]) == 0
    assert sample["instances"].gt_boxes.tensor.shape == (0, 4)
    assert sample["image"].shape == (3, 96, 96)


def test_small_rests_are_dropped_together_with_their_classes(entries):
    all_cells = CellDatasetMapper(True, augmentations=[], min_cell_area=1)(entries[1])["instances"]
    areas = all_cells.gt_masks.tensor.sum(dim=(1, 2))
    limit = int(areas.sort().values[2])
    large = CellDatasetMapper(True, augmentations=[], min_cell_area=limit)(entries[1])["instances"]
    assert len(large) == 3
    assert large.gt_classes.tolist() == [1, 1, 1]


def test_the_dataset_dict_is_not_changed(entries):
    before = copy.deepcopy(entries[0])
    CellDatasetMapper(True, augmentations=[T.Resize((50, 50))])(entries[0])
    assert entries[0] == before


def test_prediction_has_no_targets(entries):
    sample = CellDatasetMapper(False, augmentations=[T.Resize((50, 50))])(entries[0])
    assert "instances" not in sample
    assert (sample["height"], sample["width"]) == (96, 96)


def test_an_image_of_another_size_is_an_error(entries):
    with pytest.raises(CellSegError, match="annotations are for 97"):
        CellDatasetMapper(True, augmentations=[])({**entries[0], "height": 97})
