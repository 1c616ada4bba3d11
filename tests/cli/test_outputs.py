"""Every tool: what it writes is nothing that it reads, and nobody else writes there at the same time."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.cli.commands import COMMANDS
from cellseg_d2.detections.saved import save_detections
from cellseg_d2.masks.crop import MaskCrop
from tests.competition_files import write_predicted, write_train_csv
from tests.conftest import REPOSITORY
from tests.discs import write_disc_dataset, write_untrained_run

CONFIG = str(REPOSITORY / "configs/quickstart/instant_test.yaml")
ON_CPU = ("MODEL.DEVICE", "cpu")
# Calls that would write over the file that is named last.
OVER_AN_INPUT = {
    "infer": (
        ("--model", "otsu", "--input", "{d}/out/overlay", "--output", "{d}/out", "--save", "overlay"),
        "out/overlay/a.png",
    ),
    "infer, glob": (
        ("--model", "otsu", "--input", "{d}/**/a.png", "--output", "{d}/out", "--save", "overlay", "csv"),
        "out/overlay/a.png",
    ),
    "infer, settings": (
        (
            *("--model", "otsu", "--input", "{d}/images", "--output", "{d}/out", "--save", "detections"),
            *("--postprocess", "{d}/out/detections/postprocess.yaml"),
        ),
        "out/detections/postprocess.yaml",
    ),
    "convert-to-coco": (
        ("--coco", "{d}/discs/instances_train.json", "--output", "{d}/discs"),
        "discs/instances_train.json",
    ),
    "convert-to-coco, csv": (
        ("--csv", "{d}/conv/instances_val.json", "--images", "{d}/images", "--output", "{d}/conv"),
        "conv/instances_val.json",
    ),
    "convert": (("{d}/out/overlay", "--to", "overlay", "--output", "{d}/out"), "out/overlay"),
    "pseudo-label": (
        (
            *("--images", "{d}/images", "--predictions", "{d}/submission.csv", "--category", "dark"),
            *("--like", "{d}/discs/instances_train.json", "--output", "{d}/discs"),
        ),
        "discs/instances_train.json",
    ),
    "export-model": (("--config-file", "{d}/run/config.yaml", "--output", "{d}/run"), "run/config.yaml"),
    "export-model, plain": (
        ("--config-file", "{d}/run/config.yaml", "--output", "{d}/run", "--plain-detectron2"),
        "run/config.yaml",
    ),
    "evaluate": (
        ("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv", "--json", "{d}/submission.csv"),
        "submission.csv",
    ),
    "analyze-errors": (
        (
            *("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv"),
            *("--images", "{d}/out/pictures/a.png", "--output", "{d}/out"),
        ),
        "out/pictures/a.png",
    ),
    "visualize": (
        ("dataset", "--images", "{d}/images", "--ground-truth", "{d}/truth.csv", "--output", "{d}/images"),
        "images/a.png",
    ),
    "visualize, comparison": (
        (
            *("comparison", "--images", "{d}/images", "--ground-truth", "{d}/truth.csv", "--output", "{d}/images"),
            *("--predictions", "{d}/submission.csv"),
        ),
        "images/a.png",
    ),
    "visualize, fields": (
        ("fields", "--config-file", "{d}/run/config.yaml", "--images", "{d}/images", "--output", "{d}/images"),
        "images/a.png",
    ),
    "visualize, augmentations": (
        ("augmentations", "--config-file", CONFIG, "--output", "{d}/discs/images/train1.png", *ON_CPU),
        "discs/images/train1.png",
    ),
    "report": (
        (
            *("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv"),
            *("--output", "{d}/truth.csv"),
        ),
        "truth.csv",
    ),
    "report, run": (("--run", "{d}/run", "--output", "{d}/run/config.yaml"), "run/config.yaml"),
    "tune-postprocess": (
        ("--detections", "{d}/detections.npz", "--ground-truth", "{d}/truth.csv", "--output", "{d}/detections.npz"),
        "detections.npz",
    ),
    "make-simulated": (
        ("--shapes", "{d}/run/model_best.pth", "--output", "{d}/run", "--overwrite"),
        "run/model_best.pth",
    ),
    "shape-space": (
        ("train", "--json", "{d}/discs/shapes.safetensors", "--output", "{d}/discs/shapes.safetensors"),
        "discs/shapes.safetensors",
    ),
    "shape-space, map": (
        (
            *("map", "--model", "{d}/run/model_best.pth", "--json", "{d}/discs/instances_val.json"),
            *("--output", "{d}/map.png", "--csv", "{d}/discs/instances_val.json"),
        ),
        "discs/instances_val.json",
    ),
    "shape-space, rank": (
        (
            *("rank", "--model", "{d}/run/model_best.pth", "--json", "{d}/discs/instances_val.json"),
            *("--output", "{d}/ranked.csv", "--picture", "{d}/run/model_best.pth"),
        ),
        "run/model_best.pth",
    ),
    "fit-anchors": (
        ("--json", "{d}/discs/instances_val.json", "--histogram", "{d}/discs/instances_val.json"),
        "discs/instances_val.json",
    ),
    "benchmark": (
        ("predict", "--detections", "{d}/detections.npz", "--output", "{d}/detections.npz"),
        "detections.npz",
    ),
    "benchmark, models": (
        ("models", "--config-file", "{d}/run/config.yaml", "--output", "{d}/run/config.yaml"),
        "run/config.yaml",
    ),
    "cross-validate": (
        ("--config-file", "{d}/summary.json", "--dataset", "cv", "--folds", "2", "OUTPUT_DIR", "{d}"),
        "summary.json",
    ),
    "train-net": (
        ("--config-file", CONFIG, *ON_CPU, "MODEL.WEIGHTS", "{d}/run/model_best.pth", "OUTPUT_DIR", "{d}/run"),
        "run/model_best.pth",
    ),
    "train": (("--images", "{d}/images", "--labels", "{d}/taken/runs", "--project", "{d}/taken"), "taken/runs"),
}
# It writes into Python's own folder, by pip; it writes only into a new folder, or one of its own.
WITHOUT_INPUTS = {"install-detectron2", "correct"}

# Calls that write to the folder {d}/taken.
IN_A_FOLDER = {
    "infer": ("--model", "otsu", "--input", "{d}/images", "--output", "{d}/taken"),
    "convert-to-coco": ("--csv", "{d}/truth.csv", "--images", "{d}/images", "--output", "{d}/taken"),
    "convert": ("{d}/discs/instances_train.json", "--to", "coco", "--output", "{d}/taken"),
    "pseudo-label": (
        *("--images", "{d}/images", "--predictions", "{d}/submission.csv", "--category", "dark"),
        *("--like", "{d}/discs/instances_train.json", "--output", "{d}/taken"),
    ),
    "export-model": ("--config-file", "{d}/run/config.yaml", "--output", "{d}/taken"),
    "export-model, plain": (
        *("--config-file", "{d}/run/config.yaml", "--output", "{d}/taken", "--plain-detectron2"),
        *("INPUT.ZOOM_TEST", "1.0"),
    ),
    "analyze-errors": (
        *("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv", "--output", "{d}/taken"),
    ),
    "visualize": ("dataset", "--images", "{d}/images", "--ground-truth", "{d}/truth.csv", "--output", "{d}/taken"),
    "visualize, comparison": (
        *("comparison", "--images", "{d}/images", "--ground-truth", "{d}/truth.csv", "--output", "{d}/taken"),
        *("--predictions", "{d}/submission.csv"),
    ),
    "visualize, fields": (
        *("fields", "--config-file", "{d}/run/config.yaml", "--images", "{d}/images", "--output", "{d}/taken"),
        *ON_CPU,
    ),
    "cross-validate": (
        *("--config-file", CONFIG, "--dataset", "cv", "--folds", "2", *ON_CPU, "OUTPUT_DIR", "{d}/taken"),
    ),
    "train-net": ("--config-file", CONFIG, *ON_CPU, "OUTPUT_DIR", "{d}/taken"),
    "train": ("--images", "{d}/images", "--labels", "{d}/images", "--project", "{d}/taken"),
}
# One file, or (make-simulated, a save of correct) a folder that appears whole: the last one stays, and is never mixed.
WHOLE_AT_ONCE = {
    "make-simulated",
    "evaluate",
    "report",
    "tune-postprocess",
    "fit-anchors",
    "benchmark",
    "shape-space",
    "correct",
    "install-detectron2",
}

# Calls that have a folder, {d}/taken, for the file that they write at their end.
A_FOLDER_FOR_A_FILE = {
    "evaluate": ("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv", "--json", "{d}/taken"),
    "report": ("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv", "--output", "{d}/taken"),
    "tune-postprocess": ("--detections", "{d}/none.npz", "--ground-truth", "{d}/truth.csv", "--output", "{d}/taken"),
    "shape-space": (
        *("rank", "--model", "{d}/none.pth", "--json", "{d}/discs/instances_val.json"),
        *("--output", "{d}/ranked.csv", "--picture", "{d}/taken"),
    ),
    "benchmark": ("predict", "--detections", "{d}/none.npz", "--output", "{d}/taken"),
    "fit-anchors": ("--json", "{d}/discs/instances_val.json", "--histogram", "{d}/taken"),
}

HOLD = """
import sys
from cellseg_d2.io.claim import claim
claim(sys.argv[1])
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for folder in ("images", "out/overlay", "out/pictures", "out/detections", "run", "conv", "taken", "cv"):
        (tmp_path / folder).mkdir(parents=True)
    cells = {}
    for number, name in enumerate("abcd"):
        image = np.full((40, 60), 30, np.uint8)
        image[10:20, 10 + number : 30] = 200
        Image.fromarray(image).save(tmp_path / f"images/{name}.png")
        cells[name] = [MaskCrop(10, 10 + number, np.ones((10, 20 - number), bool))]
    for folder in ("overlay", "pictures"):
        (tmp_path / "out" / folder / "a.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    (tmp_path / "out/detections/postprocess.yaml").write_text("score_thresholds: [0.5]\n")
    write_train_csv(tmp_path / "truth.csv", cells, 40, 60, "dark")
    write_predicted(tmp_path / "submission.csv", cells, 60)
    (tmp_path / "conv/instances_val.json").write_text((tmp_path / "truth.csv").read_text())
    (tmp_path / "summary.json").write_text("SEED: 1\n")
    save_detections(tmp_path / "detections.npz", {}, ["dark"])
    write_disc_dataset(tmp_path)
    for fold in range(2):
        for part, other in (("train", "val"), ("val", "train")):
            content = json.loads((tmp_path / f"discs/instances_{part if fold else other}.json").read_text())
            content["info"]["image_root"] = "../discs/images"
            (tmp_path / f"cv/instances_fold{fold}_{part}.json").write_text(json.dumps(content))
    write_untrained_run(tmp_path / "run", REPOSITORY / "configs/quickstart/instant_test.yaml")
    return tmp_path


def call_in(place, call_tool, name, words):
    return call_tool(name.split(",")[0].replace("-", "_"), *(word.format(d=place) for word in words))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", OVER_AN_INPUT)
def test_no_output_is_an_input(place, call_tool, name):
    words, file = OVER_AN_INPUT[name]
    before = contents(place)
    code, said = call_in(place, call_tool, name, words)
    assert code == 2
    assert file in said
    assert "is an input and would be written over" in said
    assert contents(place) == before


@pytest.mark.parametrize("name", A_FOLDER_FOR_A_FILE)
def test_a_folder_for_a_file_is_refused_before_the_work(place, call_tool, name):
    code, said = call_in(place, call_tool, name, A_FOLDER_FOR_A_FILE[name])
    assert code == 2
    assert f"{place / 'taken'} is a folder; name a file for the results" in said


@pytest.mark.parametrize("name", IN_A_FOLDER)
def test_a_folder_that_another_process_writes_to_is_left_alone(place, call_tool, name):
    command = [sys.executable, "-c", HOLD, str(place / "taken")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        holder.stdout.readline()
        code, said = call_in(place, call_tool, name, IN_A_FOLDER[name])
        assert code == 2
        assert f"process {holder.pid} is writing to {place / 'taken'}" in said
        assert [path.name for path in (place / "taken").iterdir()] == [".lock"]
    finally:
        holder.communicate()


def test_all_tools_are_tried():
    assert {name.split(",")[0] for name in OVER_AN_INPUT} | WITHOUT_INPUTS == set(COMMANDS)
    assert {name.split(",")[0] for name in IN_A_FOLDER} | WHOLE_AT_ONCE == set(COMMANDS)
