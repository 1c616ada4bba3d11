"""Converted folders in Detectron2's catalogs."""

import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as coco_mask

from cellseg_d2.data.catalog import register_all, register_folder, register_json, require_datasets
from cellseg_d2.errors import CellSegError
from tests.discs import CLASSES, write_disc_dataset


def test_registration_is_idempotent_and_follows_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = write_disc_dataset(tmp_path, images=3, name="catalogued")
    assert register_all() == register_all() == ["catalogued_train", "catalogued_val"]
    entries = DatasetCatalog.get("catalogued_train")
    assert [len(entry["annotations"]) for entry in entries] == [5, 5, 0]
    assert MetadataCatalog.get("catalogued_train").thing_classes == list(CLASSES)

    content = json.loads((folder / "instances_train.json").read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    (folder / "instances_train.json").write_text(json.dumps(content))
    register_folder(folder)
    assert len(DatasetCatalog.get("catalogued_train")) == 1


def test_names_that_the_converter_does_not_write_are_refused(tmp_path):
    folder = write_disc_dataset(tmp_path, images=2, name="named")
    assert register_json(folder / "instances_val.json") == "named_val"
    assert DatasetCatalog.get("named_val")[0]["file_name"].endswith("val0.png")
    with pytest.raises(CellSegError, match="does not exist"):
        register_json(tmp_path / "instances_none.json")
    (folder / "instances_train.json").rename(folder / "cells.json")
    with pytest.raises(CellSegError, match="is not named instances_"):
        register_json(folder / "cells.json")


def test_unknown_names_and_damaged_files_are_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = write_disc_dataset(tmp_path, images=2, name="damaged")
    with pytest.raises(CellSegError, match=r"'nowhere_train'.*damaged_train"):
        require_datasets(["nowhere_train"])
    (folder / "instances_val.json").write_text('{"images": [')
    require_datasets(["damaged_val"])
    with pytest.raises(CellSegError, match="convert it again"):
        DatasetCatalog.get("damaged_val")


def test_polygons_of_other_tools_are_a_data_set(tmp_path):
    """What CVAT, labelme2coco or Roboflow write: polygons, no boxes, no root, ids with gaps, a crowd."""
    folder = tmp_path / "polygons"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((20, 30), np.uint8))
    square, beyond = [5, 4, 15, 4, 15, 10, 5, 10], [25, 2, 40, 2, 40, 8, 25, 8]
    content = {
        "images": [{"id": 5, "file_name": "C:\\data\\a.png"}],
        "categories": [{"id": 7, "name": "dead"}, {"id": 2, "name": "live"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "segmentation": [square]},
            {"id": 2, "image_id": 5, "category_id": 2, "segmentation": [beyond]},
            {"id": 3, "image_id": 5, "category_id": 2, "segmentation": [square], "iscrowd": 1},
        ],
    }
    (folder / "instances_train.json").write_text(json.dumps(content))
    register_folder(folder)
    [entry] = DatasetCatalog.get("polygons_train")
    assert (entry["file_name"], entry["height"], entry["width"]) == (str(folder / "a.png"), 20, 30)
    assert MetadataCatalog.get("polygons_train").thing_classes == ["live", "dead"]
    assert MetadataCatalog.get("polygons_train").thing_dataset_id_to_contiguous_id == {2: 0, 7: 1}
    assert [(a["category_id"], a["bbox"]) for a in entry["annotations"]] == [(1, [5, 4, 10, 6]), (0, [25, 2, 5, 6])]
    mask = coco_mask.decode(entry["annotations"][0]["segmentation"])
    assert mask[4:10, 5:15].all()
    assert mask.sum() == 60

    content["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    (folder / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(CellSegError, match=r"instances_train\.json, annotation 2 of image a: the mask is malformed"):
        DatasetCatalog.get("polygons_train")
