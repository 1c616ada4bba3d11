"""Images that are named by files, folders and data sets."""

import json
import ntpath
import os
from pathlib import Path

import pytest
from PIL import Image

from cellseg_d2.datasets.find import coco_images, find_inputs
from cellseg_d2.datasets.names import files_within
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.folders import common_folder
from tests.discs import write_disc_dataset


def test_inputs_may_be_named_by_a_data_set(tmp_path):
    folder = write_disc_dataset(tmp_path, images=3)
    named = find_inputs([folder / "instances_val.json"])
    assert [path.name for path in named] == ["val0.png", "val1.png", "val2.png"]
    assert set(named.values()) == {""}, "the data set knows them by their names"
    assert list(find_inputs([folder / "images"])) == sorted((folder / "images").iterdir())
    (tmp_path / "a.zarr").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    assert [path.name for path in find_inputs([tmp_path / "a.zarr", tmp_path / "b.png"])] == ["a.zarr", "b.png"]
    next(iter(named)).unlink()
    with pytest.raises(CellSegError, match=r"1 images that are not there, such as .*val0"):
        find_inputs([folder / "instances_val.json"])


@pytest.mark.parametrize(
    ("given", "recursive", "expected"),
    [
        (["in"], True, {"a": "", "p1/a": "p1", "p1/x/b": "p1/x"}),
        (["in"], False, {"a": ""}),
        (["in/p1"], True, {"p1/a": "", "p1/x/b": "x"}),
        (["in/p1/x"], True, {"p1/x/b": ""}),
        (["in/p1", "in"], False, {"p1/a": "p1", "a": ""}),
        (["in/**/*.png"], False, {"a": "", "p1/a": "p1", "p1/x/b": "p1/x"}),
        (["in/p*/*.png"], False, {"p1/a": "p1"}),
        (["in/p1/a.png"], False, {"p1/a": ""}),
        (["in/p1/a.png", "in/p1/x/b.png"], False, {"p1/a": "", "p1/x/b": "x"}),
    ],
)
def test_folders_are_relative_to_what_was_named(tmp_path, monkeypatch, given, recursive, expected):
    for place in ("a", "p1/a", "p1/x/b", "p1/.hidden/c"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / f"in/{place}.png")
    (tmp_path / "in/p1/zarr.zarr").mkdir()
    for root in (str(tmp_path), "."):
        monkeypatch.chdir(tmp_path)
        found = find_inputs([f"{root}/{name}" for name in given], recursive)
        places = {
            path.resolve().relative_to(tmp_path / "in").with_suffix("").as_posix(): folder
            for path, folder in found.items()
        }
        assert {key: value for key, value in places.items() if "zarr" not in key} == expected


def test_images_are_relative_to_the_json(tmp_path):
    path = tmp_path / "instances_val.json"
    images = [{"id": 8, "file_name": "b.png", "height": 20, "width": 30}]
    path.write_text(json.dumps({"info": {"image_root": "images"}, "images": images}))
    assert coco_images(path) == {8: tmp_path / "images" / "b.png"}
    path.write_text("[1, 2]")
    with pytest.raises(CellSegError, match="not a COCO JSON"):
        coco_images(path)


def test_links_that_lead_back_are_not_entered(tmp_path):
    (tmp_path / "in/p1").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "in/p1/a.png")
    (tmp_path / "in/latest").symlink_to(".")
    (tmp_path / "in/p1/up").symlink_to("..")
    (tmp_path / "elsewhere").mkdir()
    Image.new("L", (5, 4)).save(tmp_path / "elsewhere/b.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    files = [path.relative_to(tmp_path / "in").as_posix() for path in files_within(tmp_path / "in", recursive=True)]
    assert files == ["linked/b.png", "p1/a.png"]
    assert [path.name for path in find_inputs([tmp_path / "in"], recursive=True)] == ["b.png", "a.png"]


def test_folders_of_different_drives_are_told(monkeypatch):
    monkeypatch.setattr(os.path, "commonpath", ntpath.commonpath)
    monkeypatch.setattr(os.path, "abspath", str)
    with pytest.raises(CellSegError, match=r"C:/a and others of the paths are on different drives"):
        common_folder(["C:/a", "D:/b"])
    assert str(common_folder(["C:/a/b", "C:/a/c"])) == str(Path("C:\\a"))
