"""tools/report.py as a user runs it: on a run folder alone, whose record leads to truth and images."""

import json

import pytest

from cellseg_d2.cli import report
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import coco_to_crop
from tests.competition_files import write_predicted
from tests.discs import write_disc_dataset


@pytest.fixture
def run_folder(tmp_path):
    dataset = write_disc_dataset(tmp_path)
    truth = json.loads((dataset / "instances_val.json").read_text())
    cells = {image["file_name"].removesuffix(".png"): [] for image in truth["images"]}
    names = {image["id"]: image["file_name"].removesuffix(".png") for image in truth["images"]}
    for annotation in truth["annotations"][:-1]:
        cells[names[annotation["image_id"]]].append(coco_to_crop(annotation["segmentation"]))
    folder = tmp_path / "run"
    write_predicted(folder / "inference" / "discs_val" / "submission.csv", cells, 96)
    (folder / "losses.csv").write_text("iteration,total_loss\n0,3.0\n1,2.5\n")
    known = {"json_file": str(dataset / "instances_val.json"), "images": 4, "cells": 15, "sha256": "0" * 64}
    (folder / "run.json").write_text(json.dumps({"command": "train_net.py", "datasets": {"discs_val": known}}))
    (folder / "config.yaml").write_text("DATASETS:\n  TEST:\n  - discs_val\n")
    (tmp_path / "base.yaml").write_text("DATASETS:\n  TEST: []\n")
    return folder


def test_a_run_alone_shows_its_last_evaluation(run_folder, tmp_path, capsys):
    output = tmp_path / "report.html"
    report.main(["--run", str(run_folder), "--base-config", str(tmp_path / "base.yaml"), "--output", str(output)])
    html = output.read_text()
    assert html.startswith("<!doctype html>")
    assert "14 cells predicted, 15 true" in html
    assert html.count('class="card"') == 4
    assert "DATASETS.TEST" in html
    assert f"{output}: " in capsys.readouterr().out


def test_a_truth_that_is_gone_is_said(run_folder, tmp_path, capsys):
    (tmp_path / "discs" / "instances_val.json").unlink()
    output = tmp_path / "report.html"
    report.main(["--run", str(run_folder), "--base-config", str(tmp_path / "base.yaml"), "--output", str(output)])
    assert "14 cells predicted in 4 images" in output.read_text()
    assert "No ground truth was given" in capsys.readouterr().out


def test_mistakes(run_folder, tmp_path, capsys):
    output = ["--output", str(tmp_path / "report.html")]
    with pytest.raises(CellSegError, match=r"no submission.csv of 'other' \(there are: discs_val\)"):
        report.main(["--run", str(run_folder), "--dataset", "other", *output])
    for arguments in ([], ["--predictions", "p", "--dataset", "d"], ["--run", "r", "--max-images", "-1"]):
        with pytest.raises(SystemExit) as stopped:
            report.parse_args([*arguments, *output])
        assert stopped.value.code == 2
    assert "--run or --predictions is needed" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
