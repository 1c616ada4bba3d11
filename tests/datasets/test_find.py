"""Images that are named by files, folders and data sets."""

import json

import pytest
from PIL import Image

from cellseg_d2.datasets.find import coco_images, find_inputs
from cellseg_d2.errors import CellSegError
from tests.discs import write_disc_dataset


def test_inputs_may_be_named_by_a_data_set(tmp_path):
    folder = write_disc_dataset(tmp_path, images=3)
    named = find_inputs([folder / "instances_val.json"])
    assert [path.name for path in named] == ["val0.png", "val1.png", "val2.png"]
    assert find_inputs([folder / "images"]) == sorted((folder / "images").iterdir())
    (tmp_path / "a.zarr").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    assert [path.name for path in find_inputs([tmp_path / "a.zarr", tmp_path / "b.png"])] == ["a.zarr", "b.png"]
    named[0].unlink()
    with pytest.raises(CellSegError, match=r"1 images that are not there, such as .*val0"):
        find_inputs([folder / "instances_val.json"])


def test_images_are_relative_to_the_json(tmp_path):
    path = tmp_path / "instances_val.json"
    images = [{"id": 8, "file_name": "b.png", "height": 20, "width": 30}]
    path.write_text(json.dumps({"info": {"image_root": "images"}, "images": images}))
    assert coco_images(path) == {8: tmp_path / "images" / "b.png"}
    path.write_text("[1, 2]")
    with pytest.raises(CellSegError, match="no COCO JSON"):
        coco_images(path)
