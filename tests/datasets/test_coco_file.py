"""One COCO JSON in all the dialects of other tools: the same images, cells and categories come out."""

import json
import os

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cellseg_d2.datasets.coco_file import CocoFile, id_key, read_coco
from cellseg_d2.errors import CellSegError

HEIGHT, WIDTH = 20, 30
SQUARE = [5, 4, 15, 4, 15, 10, 5, 10]


def square():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:10, 5:15] = 1
    return mask


def content():
    return {
        "images": [
            {"id": 3, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 0, "file_name": "sub/b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 9, "name": "dead"}, {"id": 0, "name": "live"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 0, "segmentation": [list(SQUARE)]},
            {"id": 7, "image_id": 0, "category_id": 9, "segmentation": [list(SQUARE)]},
        ],
    }


def texts_for_ids(c):
    for entries in (c["images"], c["categories"], c["annotations"]):
        for entry in entries:
            entry |= {key: str(value) for key, value in entry.items() if key.endswith("id")}


def floats_for_ids(c):
    for entries in (c["images"], c["categories"], c["annotations"]):
        for entry in entries:
            entry |= {key: float(value) for key, value in entry.items() if key.endswith("id")}


def only_image_id_is_text(c):
    for entry in c["annotations"]:
        entry["image_id"] = str(entry["image_id"])


def sizes(value):
    def change(c):
        for image in c["images"]:
            image |= {"height": value, "width": value}

    return change


def no_sizes(c):
    for image in c["images"]:
        del image["height"], image["width"]


def text_sizes(c):
    for image in c["images"]:
        image |= {"height": str(HEIGHT), "width": f"{WIDTH}.0"[:2]}


def file_name(name):
    return lambda c: c["images"][1].update(file_name=name)


def segmentation(value):
    return lambda c: [a.update(segmentation=value) for a in c["annotations"]]


def annotations_by_id(c):
    c["annotations"] = {str(a["id"]): a for a in c["annotations"]}


COUNTS = [5 * HEIGHT + 4, *([6, 14] * 9), 6, 15 * HEIGHT + 10]
COMPRESSED = coco_mask.encode(np.asfortranarray(square()))["counts"].decode()
DIALECTS = {
    "as it is": lambda c: None,
    "texts for ids": texts_for_ids,
    "floats for ids": floats_for_ids,
    "only image_id is a text": only_image_id_is_text,
    "no sizes": no_sizes,
    "sizes of -1 (VIA)": sizes(-1),
    "sizes of 0": sizes(0),
    "sizes null": sizes(None),
    "texts for sizes": text_sizes,
    "backslashes": file_name("sub\\b.png"),
    "a Windows path": file_name("C:\\Users\\me\\data\\sub\\b.png"),
    "another machine's path": file_name("/home/me/data/sub/b.png"),
    "a web server's path": file_name("/data/upload/sub/b.png"),
    "pairs of x and y": segmentation([[[5, 4], [15, 4], [15, 10], [5, 10]]]),
    "pairs without the outer list": segmentation([[5, 4], [15, 4], [15, 10], [5, 10]]),
    "no outer list": segmentation(SQUARE),
    "two parts": segmentation([[5, 4, 10, 4, 10, 10, 5, 10], [10, 4, 15, 4, 15, 10, 10, 10]]),
    "plain RLE": segmentation({"size": [HEIGHT, WIDTH], "counts": COUNTS}),
    "compressed RLE": segmentation({"size": [HEIGHT, WIDTH], "counts": COMPRESSED}),
    "annotations by id": annotations_by_id,
}


@pytest.fixture
def images(tmp_path):
    """A folder with the images that `content` names."""
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((HEIGHT, WIDTH), np.uint8))
    return tmp_path


def write(folder, value, name="in.json"):
    (folder / name).write_text(json.dumps(value))
    return folder / name


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects(images, dialect):
    value = content()
    DIALECTS[dialect](value)
    file = read_coco(write(images, value))
    assert list(file.images) == [3, 0]
    assert list(file.categories.items()) == [(0, "live"), (9, "dead")]
    assert file.image_paths() == {3: images / "a.png", 0: images / "sub/b.png"}
    assert list(file.stems.values()) == ["a", "b"]
    assert [file.size(number) for number in file.images] == [(HEIGHT, WIDTH)] * 2
    found = [(a["image_id"], a["category_id"], coco_mask.decode(rle)) for a, rle, _ in file.masks()]
    assert [pair[:2] for pair in found] == [(3, 0), (0, 9)]
    for _, _, mask in found:
        np.testing.assert_array_equal(mask, square())
    assert file.names_as_written == {3: "a", 0: "b"}
    assert [id_key(image) for image in (3, "3", 3.0, " 0", -1, "-1", "a", "", None, True, 1.5)] == [
        *(3, 3, 3, 0, -1, -1, "a"),
        *[None] * 4,
    ]


def test_names_for_ids_are_numbered(images):
    value = content()
    for entry, own in zip(value["images"], ("img-a", "17"), strict=True):
        entry["id"] = own
    value["annotations"][0]["image_id"], value["annotations"][1]["image_id"] = "img-a", 17
    value["annotations"].append({**value["annotations"][0], "id": 8, "image_id": 1})
    file = read_coco(write(images, value))
    assert list(file.images) == [1, 2]
    assert file.names_as_written == {"img-a": "a", 17: "b"}
    assert [a["image_id"] for a in file.annotations] == [1, 2, "1"], "1 is not an image's id in the file"
    assert {number: len(own) for number, own in file.by_image().items()} == {1: 1, 2: 1, "1": 1}
    with pytest.raises(CellSegError, match="annotation 8: there is no image 1"):
        list(file.masks())


def test_the_folder_of_images_is_named_or_found(images):
    assert read_coco(write(images, content())).image_root == images
    (images / "json").mkdir()
    path = write(images / "json", content())
    assert read_coco(path).image_root is None
    assert read_coco(path).image_paths()[3] == images / "json/a.png", "where it would be"
    assert read_coco(write(images / "json", {**content(), "info": {"image_root": ".."}}, "b.json")).image_paths() == {
        3: images / "json/../a.png",
        0: images / "json/../sub/b.png",
    }
    (images / "set").mkdir()
    for name in ("a.png", "sub"):
        (images / "images").mkdir(exist_ok=True)
        (images / name).rename(images / "images" / name)
    for folder in (images, images / "set"):
        assert read_coco(write(folder, content(), "c.json")).image_root == images / "images"


def test_sizes_that_nothing_tells(tmp_path):
    value = content()
    sizes(-1)(value)
    file = read_coco(write(tmp_path, value))
    with pytest.raises(CellSegError, match=r"does not give the size of image a\.png, and there is no file .*a\.png"):
        file.size(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].update(id=None), "image 0 .from 0. has the id None, which is not a number or name"),
        (lambda c: c["images"][0].update(id=1.5), r"has the id 1\.5"),
        (lambda c: c["images"][0].update(id="0"), "same id 0"),
        (lambda c: c["categories"][0].update(id=True), "category 0 .from 0. has the id True"),
        (lambda c: c["images"][0].update(height="high"), "has the height 'high', which is not a whole number"),
        (lambda c: c["images"][0].update(height=10**6, width=10**6), "beyond any image"),
        (lambda c: c["images"][0].update(file_name="../../a.png"), "leads out of the folder"),
        (lambda c: c["images"][0].update(file_name="..\\a.png"), "leads out of the folder"),
        (lambda c: c["annotations"][1].update(image_id=[1]), r"annotation 1 .from 0. has the image_id \[1\]"),
        (lambda c: c["annotations"][1].update(iscrowd=2), "iscrowd 2"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "bbox"),
        (lambda c: c.update(images="a.png"), "images are not a list of objects"),
        (lambda c: c.pop("categories"), "needs images, annotations and categories"),
    ],
)
def test_what_no_reading_makes_sense_of_is_refused(tmp_path, change, message):
    value = content()
    change(value)
    with pytest.raises(CellSegError, match=message):
        read_coco(write(tmp_path, value))


def test_a_file_is_parsed_once_until_it_changes(tmp_path):
    path = write(tmp_path, content())
    assert read_coco(path) is not read_coco(path), "another version may have the same time"
    os.utime(path, (1e9, 1e9))
    assert read_coco(path) is read_coco(path)
    before = read_coco(path)
    value = content()
    value["annotations"].pop()
    write(tmp_path, value)
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert (len(before.annotations), len(read_coco(path).annotations)) == (2, 1)


def test_a_list_of_images_alone(tmp_path):
    path = write(tmp_path, {"images": content()["images"]})
    assert list(read_coco(path, annotated=False).images) == [3, 0]
    with pytest.raises(CellSegError, match="needs images, annotations"):
        read_coco(path)
    with pytest.raises(CellSegError, match="needs images, annotations"):
        CocoFile({"images": []})


@pytest.mark.parametrize(
    ("groups", "used", "expected"),
    [
        (("none", "cells"), 1, ["live"]),  # as Roboflow exports
        (("none", "cells"), 0, ["cells", "live"]),  # of which there are cells
        (("none", "none"), 1, ["cells", "live"]),
        (("cells", "cells"), 1, ["cells", "live"]),  # this project's own form
        ((None, ["odd"]), 1, ["cells", "live"]),
    ],
)
def test_a_category_that_only_groups_others_is_no_class(tmp_path, groups, used, expected):
    names = ("cells", "live")
    categories = [{"id": i, "name": names[i], "supercategory": groups[i]} for i in (0, 1)]
    content = {"images": [{"id": 0, "file_name": "a.png", "height": 9, "width": 9}], "categories": categories}
    content["annotations"] = [{"id": 1, "image_id": 0, "category_id": used, "segmentation": [[1, 1, 5, 1, 5, 5]]}]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert list(read_coco(tmp_path / "a.json").categories.values()) == expected
