"""Names that spreadsheets would take for formulas come through all tools; those that lead elsewhere are refused."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.io.csv import read_csv_table
from cellseg_d2.predictions.submission import read_submission
from tests.discs import disc_image, write_disc_dataset

NAMES = ("=1+1", "+a", "-2", "@b", "'=c", "a")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(disc_image(np.random.default_rng(seed), 96, 3, 0)[0]).save(folder / f"{name}.png")
    return folder


def test_a_formula_for_a_name_is_text_in_every_table_and_comes_back(images, tmp_path, call_tool):
    out = tmp_path / "out"
    words = ("--model", "otsu", "--min-area", 9, "--input", images, "--output", out, "--save", "csv", "submission")
    assert call_tool("infer", *words)[0] == 0
    for file in ("cells.csv", "submission.csv"):
        with open(out / file, newline="", encoding="utf-8") as opened:
            firsts = {row[0] for row in csv.reader(opened)}
        assert not any(first.startswith(("=", "+", "-", "@")) for first in firsts), file
    assert set(read_csv_table(out / "cells.csv", ("image",))["image"]) == set(NAMES)
    assert set(read_submission(out / "submission.csv")) == set(NAMES)
    # As truth and predictions in one: found by its name everywhere.
    (tmp_path / "truth.csv").write_text(
        "id,annotation,width,height,cell_type\n"
        + "".join(
            f"{line.partition(',')[0]},{line.partition(',')[2]},96,96,cort\n"
            for line in (out / "submission.csv").read_text().splitlines()[1:]
        )
    )
    files = ("--predictions", out / "submission.csv", "--ground-truth", tmp_path / "truth.csv")
    assert call_tool("evaluate", *files, "--json", tmp_path / "score.json")[0] == 0
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["mean"] == 1
    pictures = tmp_path / "pictures"
    assert call_tool("visualize", "comparison", *files, "--images", images, "--output", pictures)[0] == 0
    assert {path.stem for path in pictures.iterdir()} == {*NAMES, "sheet"}
    assert (
        call_tool(
            "convert_to_coco",
            "--csv",
            tmp_path / "truth.csv",
            "--images",
            images,
            "--clean",
            "--val-fraction",
            0,
            "--output",
            tmp_path / "coco",
        )[0]
        == 0
    )
    converted = json.loads((tmp_path / "coco/instances_train.json").read_text())
    assert {image["file_name"] for image in converted["images"]} == {f"{name}.png" for name in NAMES}


@pytest.fixture
def leading_out(tmp_path, monkeypatch):
    """A data set one of whose images lies outside of the folder that it names."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = write_disc_dataset(tmp_path)
    (folder / "images/train0.png").rename(folder / "train0.png")
    content = json.loads((folder / "instances_train.json").read_text())
    content["images"][0]["file_name"] = "../train0.png"
    (folder / "instances_train.json").write_text(json.dumps(content))
    (tmp_path / "submission.csv").write_text("id,predicted\ntrain0,1 3\n")
    return tmp_path


READERS = {
    "infer": ("--model", "otsu", "--input", "{json}", "--output", "{d}/out"),
    "convert_to_coco": ("--livecell", "{json}", "--output", "{d}/out"),
    "evaluate": ("--predictions", "{d}/submission.csv", "--ground-truth", "{json}"),
    "analyze_errors": ("--predictions", "{d}/submission.csv", "--ground-truth", "{json}", "--output", "{d}/out"),
    "report": ("--predictions", "{d}/submission.csv", "--ground-truth", "{json}", "--output", "{d}/out"),
    "visualize": ("dataset", "--images", "{d}/discs/images", "--ground-truth", "{json}", "--output", "{d}/out"),
    "train_net": ("--config-file", "configs/quickstart/instant_test.yaml", "OUTPUT_DIR", "{d}/out"),
    "pseudo_label": (
        *("--images", "{d}/discs/images", "--predictions", "{d}/submission.csv", "--category", "dark"),
        *("--like", "{d}/discs/instances_val.json", "--held-out", "{json}", "--output", "{d}/out"),
    ),
}


@pytest.mark.parametrize("tool", READERS)
def test_a_file_name_does_not_lead_out_of_its_folder(leading_out, tool, call_tool, repository, monkeypatch):
    monkeypatch.chdir(repository)
    json_file = leading_out / "discs/instances_train.json"
    code, said = call_tool(tool, *(word.format(d=leading_out, json=json_file) for word in READERS[tool]))
    assert code == 2
    assert "names the file '../train0.png', which leads out of the folder of its images" in said
    assert not (leading_out / "out").exists()


def test_an_id_does_not_either(images, tmp_path, call_tool):
    (tmp_path / "truth.csv").write_text("id,annotation,width,height,cell_type\n../a,1 3,96,96,cort\na,1 3,96,96,cort\n")
    words = ("--csv", tmp_path / "truth.csv", "--output", tmp_path / "out", "--val-fraction", 0)
    code, said = call_tool("convert_to_coco", *words, "--images", images)
    assert code == 2
    assert "no image called ../a" in said
    code, said = call_tool("convert_to_coco", *words, "--allow-missing-images")
    assert code == 2
    assert "names the file '../a.png', which leads out" in said
    assert not (tmp_path / "out/instances_train.json").exists()
