"""Whatever becomes of what is printed, results are the same: closed and full consoles, and those of few characters."""

import json
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.cli.commands import COMMANDS
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.saved import save_detections
from cellseg_d2.masks.crop import MaskCrop
from tests.cli.test_hostile_yaml import SUBCOMMANDS
from tests.competition_files import write_predicted, write_train_csv
from tests.conftest import REPOSITORY
from tests.discs import write_disc_dataset, write_untrained_run
from tests.quick_python import quick_python

ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "utf-8")
# Calls one command after another, as if each had its own process; their exit codes go to a file.
CHILD = """
import json, sys
from cellseg_d2.cli import call
from cellseg_d2.cli.common import run
codes = []
for words in json.load(open(sys.argv[1])):
    try:
        run(lambda: call(words))
    except SystemExit as ended:
        codes.append(ended.code or 0)
json.dump(codes, open(sys.argv[2], "w"))
"""
NAME = "é ≤ 日"
CALLS = {
    "make-simulated": ("--output", "{o}/sim", "--images-per-type", "1", "--test-per-type", "1", "--size", "96", "64"),
    "convert-to-coco": ("--csv", "{d}/truth.csv", "--images", "{d}/images", "--output", "{o}/coco", "--clean"),
    "infer": ("--model", "otsu", "--input", "{d}/images", "--output", "{o}/infer", "--save", "csv", "submission"),
    "pseudo-label": (
        *("--images", "{d}/images", "--predictions", "{d}/submission.csv", "--category", "dark"),
        *("--like", "{d}/discs/instances_train.json", "--output", "{o}/pseudo"),
    ),
    "export-model": ("--config-file", "{d}/run/config.yaml", "--output", "{o}/model"),
    "evaluate": ("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv", "--json", "{o}/out.json"),
    "analyze-errors": (
        "--predictions",
        "{d}/submission.csv",
        "--ground-truth",
        "{d}/truth.csv",
        "--output",
        "{o}/errors",
    ),
    "visualize": ("dataset", "--images", "{d}/images", "--ground-truth", "{d}/truth.csv", "--output", "{o}/pictures"),
    "report": ("--predictions", "{d}/submission.csv", "--ground-truth", "{d}/truth.csv", "--output", "{o}/report.html"),
    "tune-postprocess": (
        *("--detections", "{d}/detections.npz", "--ground-truth", "{d}/truth.csv", "--output", "{o}/tuned.yaml"),
        *("--trials", "3", "--folds", "2"),
    ),
    "convert": ("{d}/discs/instances_train.json", "--to", "coco", "--output", "{o}/converted"),
    "shape-space": ("rank", "--json", "{d}/discs/instances_train.json", "--output", "{o}/ranked.csv"),
    "fit-anchors": ("--json", "{d}/discs/instances_val.json", "--histogram", "{o}/anchors.png"),
    "benchmark": ("predict", "--cells", "5", "--size", "60", "80", "--repeats", "1", "--output", "{o}/figures.json"),
    "train-net": (
        *("--config-file", str(REPOSITORY / "configs/quickstart/instant_test.yaml"), "MODEL.DEVICE", "cpu"),
        *("SOLVER.MAX_ITER", "1", "TEST.EVAL_PERIOD", "0", "DATASETS.TEST", "()", "OUTPUT_DIR", "{o}/run"),
    ),
}
# Those that start fast are tried in more ways.
LIGHT = ("make-simulated", "convert-to-coco", "evaluate", "analyze-errors", "visualize")
# Their trainings are train-net's, whose output they keep in files; napari's window; pip.
ELSEWHERE = {"cross-validate", "train", "correct", "install-detectron2"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("place")
    for folder in ("images", "run"):
        (root / folder).mkdir()
    found = {}
    for number, name in enumerate([NAME, "b", "c", "d"]):
        image = np.full((40, 60), 30, np.uint8)
        image[10:20, 10 + number : 30] = 200
        Image.fromarray(image).save(root / f"images/{name}.png")
        crop = MaskCrop(10, 10 + number, np.ones((10, 20 - number), bool))
        box, score = np.array([crop.box], np.float32), np.array([0.9], np.float32)
        found[name] = Detections(40, 60, box, score, np.array([0]), [crop])
    cells = {name: one.masks for name, one in found.items()}
    write_train_csv(root / "truth.csv", cells, 40, 60, "dark")
    write_predicted(root / "submission.csv", cells, 60)
    save_detections(root / "detections.npz", found, ["dark"])
    write_disc_dataset(root)
    write_untrained_run(root / "run", REPOSITORY / "configs/quickstart/instant_test.yaml")
    return root


def call_all(calls, folder, redirection="", encoding="utf-8", datasets=""):
    """Exit codes of the calls, and what they say where that can be seen."""
    folder.mkdir(exist_ok=True)
    (folder / "calls.json").write_text(json.dumps(calls))
    command = [*quick_python(), "-c", CHILD, str(folder / "calls.json"), str(folder / "codes.json")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    environment["DETECTRON2_DATASETS"] = str(datasets)
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *command]
    ended = subprocess.run(shell, capture_output=True, env=environment, timeout=600)
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    said = ended.stdout.decode(encoding)
    return json.loads((folder / "codes.json").read_text()), said, ended.stderr.decode(encoding)


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "events.out" not in path.name)


@pytest.fixture(scope="module")
def usual(place, tmp_path_factory):
    """What the calls write where all can be printed, by the first folder or file of each."""
    folder = tmp_path_factory.mktemp("usual")
    codes, said, errors = call_all(calls_of(place, folder / "out"), folder, datasets=place)
    assert codes == [0] * len(CALLS), [line for line in errors.splitlines() if "error: " in line]
    assert NAME in said
    return written(folder / "out")


def check_the_same(place, usual, folder, names, code=0, **options):
    """Call tools, and compare their exit codes and files with what is usual; returns what they said."""
    codes, said, errors = call_all(calls_of(place, folder / "out", names), folder, datasets=place, **options)
    assert codes == [code] * len(names), [line for line in errors.splitlines() if "error: " in line]
    outputs = {word.removeprefix("{o}/") for name in names for word in CALLS[name] if word.startswith("{o}")}
    assert written(folder / "out") == [file for file in usual if file.split("/")[0] in outputs]
    return said


def calls_of(place, output, names=CALLS):
    output.mkdir()
    return [[name, *(word.format(d=place, o=output) for word in CALLS[name])] for name in names]


@pytest.mark.parametrize(
    ("redirection", "code", "unbuffered", "names"),
    [
        ("<&- >&- 2>&-", 0, "", CALLS),
        (">/dev/full", 2, "1", CALLS),
        (">&-", 0, "1", LIGHT),
        (">/dev/full 2>&1", 2, "", LIGHT),
        ("| :", 0, "", LIGHT),
        ("| :", 0, "1", LIGHT),
    ],
)
def test_results_do_not_depend_on_where_to_print(
    place, usual, tmp_path, monkeypatch, redirection, code, unbuffered, names
):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    check_the_same(place, usual, tmp_path, names, code, redirection=redirection)


@pytest.mark.parametrize(
    ("encoding", "names"), [("ascii", CALLS), ("latin-1", LIGHT), ("cp1252", LIGHT), ("cp437", LIGHT)]
)
def test_results_do_not_depend_on_the_console_s_letters(place, usual, tmp_path, encoding, names):
    assert NAME not in check_the_same(place, usual, tmp_path, names, encoding=encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_help_prints_on_any_console(tmp_path, encoding):
    calls = [[name, *filter(None, [sub]), "--help"] for name in COMMANDS for sub in ("", *SUBCOMMANDS.get(name, ()))]
    codes, said, _ = call_all([*calls, []], tmp_path, encoding=encoding)
    assert set(codes) == {0}
    assert said.count("usage:") == len(calls) + 1
    assert "\\u" not in said, "characters of the help texts have plain forms"
    assert "\\x" not in said


def test_all_tools_are_tried():
    assert CALLS.keys() | ELSEWHERE == COMMANDS.keys()


def test_an_error_is_one_sentence_there_too(tmp_path):
    calls = [["evaluate", "--predictions", f"{tmp_path}/≤.csv", "--ground-truth", f"{tmp_path}/≤.csv"]]
    for encoding, name in (("ascii", "<=.csv"), ("cp437", "≤.csv"), ("cp1252", "<=.csv")):
        codes, _, errors = call_all(calls, tmp_path, encoding=encoding)
        assert codes == [2]
        assert errors.startswith("error: ")
        assert name in errors
