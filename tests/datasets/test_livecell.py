"""LIVECell's layout and polygons, drawn and real."""

import json

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.livecell import CELL_LINES, describe_livecell, find_livecell, livecell_source
from cellseg_d2.errors import CellSegError

NAMES = {
    "train": ["A172_Phase_C7_1_00d00h00m_1.tif", "A172_Phase_C7_2_00d04h00m_3.tif", "BV2_Phase_A4_1_00d00h00m_1.tif"],
    "test": ["SkBr3_Phase_H3_1_00d00h00m_1.tif"],
}


def circle(x, y, radius, points=60):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1).round(2).ravel().tolist()


@pytest.fixture
def livecell(tmp_path):
    """The Kaggle layout; the test part has its annotations in a dict."""
    number = 1000
    for split, names in NAMES.items():
        content = {"categories": [{"id": 1, "name": "cell"}], "images": [], "annotations": []}
        for name in names:
            folder = (
                tmp_path / f"images/livecell_{'test' if split == 'test' else 'train_val'}_images/{name.split('_')[0]}"
            )
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((80, 100), np.uint8)).save(folder / name)
            content["images"].append({"id": number, "file_name": name, "height": 80, "width": 100})
            for i, radius in enumerate((8, 12), start=1):
                content["annotations"].append(
                    {
                        "id": number + i,
                        "image_id": number,
                        "category_id": 1,
                        "iscrowd": 0,
                        "segmentation": [circle(10 + 30 * i, 40, radius)],
                    }
                )
            number += 10
        if split == "test":
            content["annotations"] = {str(a["id"]): a for a in content["annotations"]}
        folder = tmp_path / "annotations/LIVECell"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"livecell_coco_{split}.json").write_text(json.dumps(content))
    return tmp_path


def test_parts_and_images_are_found(livecell, tmp_path):
    jsons, images = find_livecell(livecell)
    assert {split: path.name for split, path in jsons.items()} == {
        "train": "livecell_coco_train.json",
        "test": "livecell_coco_test.json",
    }
    assert images == livecell / "images"
    assert find_livecell(jsons["test"]) == ({"test": jsons["test"]}, (livecell / "images").resolve())
    assert find_livecell(livecell, "elsewhere")[1].name == "elsewhere"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CellSegError, match=r"has no livecell_coco_train\.json"):
        find_livecell(tmp_path / "empty")
    with pytest.raises(CellSegError, match="does not exist"):
        find_livecell(tmp_path / "nowhere")
    (livecell / "images").rename(livecell / "pictures")
    with pytest.raises(CellSegError, match="--livecell-images"):
        find_livecell(livecell)


def test_polygons_become_masks_with_names_and_types(livecell):
    jsons, root = find_livecell(livecell)
    images = ImageFolder(root, recursive=True)
    log = FindingLog()
    records = list(livecell_source(jsons["train"], images).records(log))
    assert log == []
    assert [record.file_name for record in records] == [
        "livecell_train_val_images/" + name.split("_")[0] + "/" + name for name in NAMES["train"]
    ]
    assert [(record.number, record.cell_type, record.group) for record in records] == [
        (1000, "A172", "A172_C7"),
        (1010, "A172", "A172_C7"),
        (1020, "BV2", "BV2_A4"),
    ]
    small, large = records[0].cells
    assert (small.cell_type, small.row) == ("cell", 1001)
    for cell, center in ((small, 40), (large, 70)):
        assert np.argwhere(cell.crop.to_full(80, 100)).mean(axis=0) + 0.5 == pytest.approx((40, center), abs=0.5)
    assert small.crop.area == pytest.approx(np.pi * 8**2, rel=0.03)
    (test,) = livecell_source(jsons["test"], images).records(log)
    assert (len(test.cells), test.cell_type) == (2, "SkBr3")


def test_categories_by_cell_line_are_always_the_same(livecell):
    jsons, root = find_livecell(livecell)
    for split, types in (("train", {"A172", "BV2"}), ("test", {"SkBr3"})):
        source = livecell_source(jsons[split], ImageFolder(root, recursive=True), by_type=True)
        assert source.categories == CELL_LINES
        records = list(source.records(FindingLog()))
        assert {cell.cell_type for record in records for cell in record.cells} == types
    assert livecell_source(jsons["train"]).categories == ("cell",)


def test_names_that_are_not_livecell_s():
    assert describe_livecell({"file_name": "mine.tif"}) == (None, None)


def test_real_images(shared_data):
    jsons, root = find_livecell(shared_data / "LIVECell_dataset_2021")
    images, log = ImageFolder(root, recursive=True), FindingLog()
    cells = ratio = 0
    for split, path in jsons.items():
        published = {a["id"]: a["area"] for a in json.loads(path.read_text())["annotations"]}
        for record in livecell_source(path, images).records(log):
            assert (root / record.file_name).is_file(), split
            assert record.cell_type in CELL_LINES
            cells += len(record.cells)
            ratio += sum(cell.crop.area / published[cell.row] for cell in record.cells)
    assert log == []
    assert cells == 4528
    assert ratio / cells == pytest.approx(1, abs=0.01), "areas as published"
