"""Converted folders in Detectron2's catalogs."""

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from cellseg_d2.data.catalog import register_all, register_folder, require_datasets
from cellseg_d2.errors import CellSegError
from tests.discs import CLASSES, write_disc_dataset


def test_registration_is_idempotent_and_follows_the_files(tmp_path):
    folder = write_disc_dataset(tmp_path, images=3, name="catalogued")
    assert register_all(tmp_path) == register_all(tmp_path) == ["catalogued_train", "catalogued_val"]
    entries = DatasetCatalog.get("catalogued_train")
    assert [len(entry["annotations"]) for entry in entries] == [5, 5, 0]
    assert MetadataCatalog.get("catalogued_train").thing_classes == list(CLASSES)

    content = json.loads((folder / "instances_train.json").read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 1]
    (folder / "instances_train.json").write_text(json.dumps(content))
    register_folder(folder)
    assert len(DatasetCatalog.get("catalogued_train")) == 1


def test_a_folder_under_another_name(tmp_path):
    folder = write_disc_dataset(tmp_path, images=2)
    assert register_folder(folder, "renamed") == ["renamed_train", "renamed_val"]
    assert DatasetCatalog.get("renamed_val")[0]["file_name"].endswith("val0.png")


def test_unknown_names_and_damaged_files_are_explained(tmp_path):
    folder = write_disc_dataset(tmp_path, images=2, name="damaged")
    with pytest.raises(CellSegError, match=r"'nowhere_train'.*damaged_train"):
        require_datasets(["nowhere_train"], tmp_path)
    (folder / "instances_val.json").write_text('{"images": [')
    require_datasets(["damaged_val"], tmp_path)
    with pytest.raises(CellSegError, match="convert it again"):
        DatasetCatalog.get("damaged_val")
