"""Held-out images are found by name and by what they show."""

import json

import cv2
import numpy as np
import pytest

from cellseg_d2.datasets.leaks import find_leaks


@pytest.fixture
def held_out(tmp_path):
    """A COCO JSON of the images a and b; the file of c is missing."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "ab":
        cv2.imwrite(str(folder / "images" / f"{name}.png"), rng.integers(0, 255, (20, 30), dtype=np.uint8))
    images = [{"id": 7 + i, "file_name": f"{name}.png", "height": 20, "width": 30} for i, name in enumerate("abc")]
    path = folder / "instances_val.json"
    path.write_text(json.dumps({"info": {"image_root": "images"}, "images": images}))
    return path


def write(folder, name, image):
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), image)
    return folder / name


def test_by_name_also_where_the_pixels_differ_or_are_missing(held_out, tmp_path):
    other = np.full((20, 30), 9, np.uint8)
    paths = [write(tmp_path / "new", f"{name}.png", other) for name in ("a", "c", "d")]
    assert find_leaks(paths, [held_out]) == {paths[0]: f"{held_out}: a", paths[1]: f"{held_out}: c"}
    assert find_leaks(paths, []) == {}


def test_by_pixels_under_another_name_and_in_another_format(held_out, tmp_path):
    copied = cv2.imread(str(held_out.parent / "images/b.png"), cv2.IMREAD_GRAYSCALE)
    renamed = write(tmp_path / "new", "other.tif", copied)
    copied[3, 4] += 1
    changed = write(tmp_path / "new", "changed.png", copied)
    assert find_leaks([renamed, changed], [held_out]) == {renamed: f"{held_out}: b (the same pixels)"}


def test_a_damaged_image_is_left_to_others_to_report(held_out, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    assert find_leaks([tmp_path / "x.png"], [held_out]) == {}


def test_an_image_of_which_a_tile_is_held_out(held_out, tmp_path):
    content = json.loads(held_out.read_text())
    for image in content["images"]:
        image["cut_from"] = "plate1/whole"
    held_out.write_text(json.dumps(content))
    path = write(tmp_path / "new", "whole.png", np.full((40, 60), 9, np.uint8))
    assert find_leaks([path], [held_out]) == {path: f"{held_out}: a tile of whole"}
