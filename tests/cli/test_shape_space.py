"""The command from a data set to a space, a map of it and a ranking."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.saved import load_detections, save_detections
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.shape_space import SHIPPED
from cellseg_d2.shape_space.space import ShapeSpace
from tests.discs import write_disc_dataset


@pytest.fixture
def discs(tmp_path):
    return write_disc_dataset(tmp_path, images=9, size=128, count=12)


def test_train_map_and_rank(discs, tmp_path, call_tool):
    data, model = discs / "instances_train.json", tmp_path / "shapes.safetensors"
    code, said = call_tool("shape_space", "train", "--json", data, "--output", model, "--steps", 5, "--width", 4)
    assert code == 0
    assert "96 cells, " in said
    assert "bright, dark" in said
    space = ShapeSpace.load(model)
    assert space.latent == 2
    files = ("--model", model, "--json", data, discs / "instances_val.json")
    picture, table = tmp_path / "map.png", tmp_path / "map.csv"
    assert call_tool("shape_space", "map", *files, "--output", picture, "--csv", table)[0] == 0
    assert Image.open(picture).size[0] > 1000
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 2 * 96
    assert list(rows[0]) == ["image", "row", "cell_type", "x", "y", "length", "plausibility", "cut"]
    assert {row["cell_type"] for row in rows} == {"bright", "dark"}
    assert 2 * 128 / 14 - 2 < float(rows[0]["length"]) < 2 * 128 / 8 + 2
    ranked, sheet = tmp_path / "ranked.csv", tmp_path / "sheet.png"
    code, said = call_tool("shape_space", "rank", *files, "--output", ranked, "--picture", sheet, "--count", 9)
    assert code == 0
    rows = list(csv.DictReader(ranked.open()))
    assert f"{len(rows)} cells; {2 * 96 - len(rows)} more are cut" in said
    surprises = np.array([float(row["surprise"]) for row in rows])
    assert (np.diff(surprises) <= 0).all()
    assert Image.open(sheet).size[1] > 2 * 96


@pytest.mark.parametrize(
    "called",
    [
        lambda k: f"ann-{k}",
        lambda k: f"ann-{k}" if k % 2 else k,  # as two tools' files beside each other
        lambda k: f"ann-{k}" if k % 2 else None,
    ],
)
def test_annotations_may_be_called_by_texts(called, discs, tmp_path, call_tool):
    content = json.loads((discs / "instances_val.json").read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = called(number)
        if annotation["id"] is None:
            del annotation["id"]
    named = {str(annotation.get("id", "")) for annotation in content["annotations"]}
    data = tmp_path / "texts.json"
    data.write_text(json.dumps(content))
    for command, table in (("rank", ("--output", tmp_path / "rank.csv")), ("map", ("--csv", tmp_path / "map.csv"))):
        picture = ("--output", tmp_path / "map.png") if command == "map" else ()
        code, said = call_tool("shape_space", command, "--json", data, *picture, *table)
        assert code == 0, said
        rows = [row["row"] for row in csv.DictReader(table[1].open())]
        assert rows
        assert set(rows) <= named


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rank", "--output", "a.csv", "--picture", "x.txt"), "x.txt does not end in .png"),
        (("map", "--output", "x.txt", "--csv", "a.csv"), "x.txt does not end in .png"),
        (("rank", "--output", "a.png", "--picture", "a.png"), "a.png is named for two outputs"),
        (("map", "--output", "a.png", "--csv", "a.png"), "a.png is named for two outputs"),
    ],
)
def test_outputs_are_checked_before_the_work(discs, tmp_path, call_tool, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, printed = call_tool("shape_space", *words, "--json", discs / "instances_val.json")
    assert code == 2
    assert said in printed
    assert [path.name for path in tmp_path.iterdir()] == ["discs"]


def test_wrong_calls_are_refused_before_anything_is_read(discs, tmp_path, call_tool):
    data = discs / "instances_train.json"
    code, said = call_tool("shape_space", "map", "--model", data, "--json", data, "--output", tmp_path / "map.png")
    assert code == 2
    assert "cannot be read as weights" in said
    words = ("train", "--json", data, "--output", tmp_path / "a.safetensors")
    assert "latent dimensions must be 2 to 64, not 1" in call_tool("shape_space", *words, "--latent", 1)[1]
    code, said = call_tool("shape_space", "rank", "--model", tmp_path / "a.csv", "--json", data, "--output", data)
    assert code == 2
    assert "would be written over" in said
    assert not list(tmp_path.glob("*.safetensors"))


def test_conversion_reports_implausible_shapes(discs, tmp_path, call_tool):
    data, model = discs / "instances_train.json", tmp_path / "shapes.safetensors"
    assert call_tool("shape_space", "train", "--json", data, "--output", model, "--steps", 5, "--width", 4)[0] == 0
    words = ("--coco", data, "--allow-missing-images", "--val-fraction", 0, "--no-progress")
    kinds = {}
    for share in (None, 0.999999):
        out = tmp_path / f"out{share}"
        options = () if share is None else ("--implausible", share)
        code, said = call_tool("convert_to_coco", *words, "--shapes", model, *options, "--output", out)
        assert code == 0, said
        content = json.loads((out / "audit.json").read_text())
        kinds[share] = content["kinds"].get("implausible shape", {"count": 0})
        assert content["cells"] == 96
    cells = json.loads(data.read_text())["annotations"]
    inside = sum(x > 0 and y > 0 and x + w < 128 and y + h < 128 for x, y, w, h in (cell["bbox"] for cell in cells))
    assert kinds[0.999999] == {"severity": "warning", "count": inside, "acted_on": 0}
    assert kinds[None]["count"] < inside / 4
    code, said = call_tool("convert_to_coco", *words, "--shapes", tmp_path / "none", "--output", tmp_path / "no")
    assert code == 2
    assert "there is no weights file" in said


def test_images_are_simulated_with_shapes_of_a_space(discs, tmp_path, call_tool):
    data, model = discs / "instances_train.json", tmp_path / "shapes.safetensors"
    assert call_tool("shape_space", "train", "--json", data, "--output", model, "--steps", 5, "--width", 4)[0] == 0
    words = ("--shapes", model, "--size", 128, 96, "--test-per-type", 1)
    code, said = call_tool("make_simulated", "--output", tmp_path / "like", "--images-per-type", 1, 2, *words)
    assert code == 0, said
    rows = list(csv.DictReader((tmp_path / "like/train.csv").open()))
    assert {row["cell_type"] for row in rows} == {"bright", "dark"}
    assert f"train:     3 images {len(rows):7} cells" in said
    code, said = call_tool("make_simulated", "--output", tmp_path / "no", "--images-per-type", 1, 2, 3, *words)
    assert code == 2
    assert "--images-per-type takes one number or 2, not 3" in said
    assert not (tmp_path / "no").exists()


def test_scores_of_saved_detections_are_weighed_by_the_space_of_the_project(tmp_path, call_tool):
    masks = [np.ones((9, 9), bool), np.eye(30, dtype=bool) | (np.arange(30) == 15)]
    crops = [MaskCrop(5, 5, mask) for mask in masks]
    scores = np.array([0.8, 0.8], np.float32)
    own = Detections(60, 60, np.zeros((2, 4), np.float32), scores, np.zeros(2, np.int64), crops)
    save_detections(tmp_path / "a.npz", {"a": own}, ["cell"])
    words = ("--detections", tmp_path / "a.npz", "--output", tmp_path / "b.npz")
    assert call_tool("shape_space", "weigh", *words, "--exponent", 0.1)[0] == 0
    weighed = load_detections(tmp_path / "b.npz")
    assert weighed.class_names == ["cell"]
    factors = np.maximum(ShapeSpace.load(SHIPPED).plausibilities(masks), 1e-12) ** 0.1
    assert np.allclose(weighed.images["a"].scores, scores * factors, rtol=1e-3)
    assert factors.min() < 0.99
    code, said = call_tool("shape_space", "weigh", *words[:2], "--output", tmp_path / "a.npz", "--exponent", 0.1)
    assert code == 2
    assert "would be written over" in said
