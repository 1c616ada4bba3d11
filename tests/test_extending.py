"""What docs/extending.md and examples/ show works as it stands there, and its tables are those of the registries."""

import csv
import json
import os
import re
import subprocess

import pytest

from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.readers import DATASET_READERS
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.export.formats import batch_formats
from cellseg_d2.predictions.submission import read_submission
from tests.conftest import REPOSITORY
from tests.discs import write_disc_dataset
from tests.quick_python import quick_python

TEXT = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
OWN = ["MODEL.BACKBONE.NAME", "build_plain_fpn_backbone", "TEST.EVALUATORS", "['competition','counts']"]
OWN += ["INPUT.AUGMENTATIONS", "['rotate_zoom_crop','flip','scan_lines']", "INPUT.SCAN_LINES.PROBABILITY", "1.0"]


@pytest.mark.parametrize(
    ("kind", "head", "names"),
    [
        ("readers", ("`convert-to-coco`", "reads"), {f"--{k}": v.summary for k, v in DATASET_READERS.items()}),
        ("augmentations", ("`INPUT.AUGMENTATIONS`", "what"), AUGMENTATION_REGISTRY.summaries),
        ("evaluators", ("`TEST.EVALUATORS`", "what"), EVALUATOR_REGISTRY.summaries),
        ("formats", ("`infer --save`", "what"), batch_formats()),
    ],
)
def test_tables_are_those_of_the_registries(kind, head, names):
    rows = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    rows += [f"| `{name}` | {summary.replace('``', '`')} |" for name, summary in names.items()]
    expected = "\n".join(rows)
    shown = re.search(rf"<!-- {kind} -->\n(.*?)\n?<!-- end -->", TEXT, re.S)[1]
    assert shown == expected, f"put this into docs/extending.md:\n{expected}"
    assert all(names.values()), "every entry says what it is"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The examples of the text as files, and the disc dataset."""
    folder = tmp_path_factory.mktemp("extending")
    for name, code in re.findall(r"```python\n# (\w+\.py): .*?\n(.*?)```", TEXT, re.S):
        (folder / name).write_text(code)
    assert len(list(folder.iterdir())) == 6
    (folder / "mlflow.py").write_text(MLFLOW)
    write_disc_dataset(folder / "datasets")
    return folder


# In place of the package: notes what it is told.
MLFLOW = """
import json
from tests.quick_python import quick_python
told = {"runs": [], "params": {}, "metrics": []}
start_run = lambda run_name: told["runs"].append(run_name)
log_params = told["params"].update
log_metrics = lambda metrics, step: told["metrics"].append([step, metrics])
end_run = lambda: json.dump(told, open("told.json", "w"))
"""


def call(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DETECTRON2_DATASETS": str(folder / "datasets")}
    command = [*quick_python(), "-m", "cellseg_d2.cli", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_the_reader(examples):
    (examples / "cells.csv").write_text("image,x,y,radius\ntrain0,30,40,8\ntrain0,70,20.5,5\ntrain1,50,50,20\n")
    source = ["--circles", "cells.csv", "--images", "datasets/discs/images", "--output", "converted"]
    call(examples, "convert-to-coco", "--import", "circles.py", *source, "--val-fraction", 0)
    first, second = load_coco(examples / "converted/instances_train.json")
    assert (first.id, len(first.cells), len(second.cells)) == ("train0", 2, 1)
    assert second.cells[0].crop.area == pytest.approx(3.1416 * 20**2, rel=0.01)
    assert "--circles FILE" in call(examples, "convert-to-coco", "--import", "circles.py", "--help")


def check_training_and_prediction(folder, run, *files):
    imports = [f"--import={file}" for file in files]
    config = ["--config-file", REPOSITORY / "configs/quickstart/instant_test.yaml"]
    opts = ["SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, "OUTPUT_DIR", run, *OWN]
    call(folder, "train-net", *imports, *config, *opts)
    scores = [json.loads(line) for line in (folder / run / "metrics.json").read_text().splitlines()][-1]
    predicted = read_submission(folder / run / "inference/discs_val/submission.csv")
    errors = [abs(len(predicted[f"val{i}"]) - cells) for i, cells in enumerate((5, 5, 5, 0))]
    assert scores["counts/mean_error"] == pytest.approx(sum(errors) / 4)
    assert sum(errors) > 0, "two iterations are no training"
    assert "scan_lines" in (folder / run / "config.yaml").read_text()
    assert "PlainNet" in (folder / run / "log.txt").read_text()
    images, out = folder / "datasets/discs/images", folder / f"{run}_out"
    save = ["--save", "centres", "labels", "--score-threshold", 0]
    call(
        folder,
        "infer",
        *imports,
        "--config-file",
        folder / run / "config.yaml",
        "--input",
        images,
        "--output",
        out,
        *save,
    )
    tables = [list(csv.DictReader(path.open())) for path in (out / "centres").glob("*_centres.csv")]
    assert len(tables) == 8
    assert all(0 <= float(row["x"]) <= 96 and 0 <= float(row["y"]) <= 96 for table in tables for row in table)


def test_augmentation_evaluator_backbone_format_and_writer(examples):
    files = ("scan_lines.py", "counts.py", "plain.py", "centres.py", "mlflow_writer.py")
    check_training_and_prediction(examples, "run", *files)
    told = json.loads((examples / "told.json").read_text())
    assert told["runs"] == ["run"]
    assert told["params"]["SOLVER.MAX_ITER"] == "2"
    metrics = {name: value for _, metrics in told["metrics"] for name, value in metrics.items()}
    assert {"total_loss", "lr", "counts/mean_error", "competition/score_0.50"} <= metrics.keys()
    assert all(re.fullmatch(r"[/\w.\- ]+", name) for name in metrics), "MLflow takes no other names"


def test_the_example_of_a_whole_project(examples):
    check_training_and_prediction(examples, "project", REPOSITORY / "examples/my_project.py")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "there is no such file"),
        ("nowhere", "there is no such module"),
        ("own/argparse.py", "another module argparse"),
    ],
)
def test_a_module_that_cannot_be_had_is_one_sentence(tmp_path, name, message):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/argparse.py").touch()
    command = [*quick_python(), "-m", "cellseg_d2.cli", "evaluate", "--import", name]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
