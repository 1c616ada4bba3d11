"""tools/evaluate.py as a user runs it, on drawn cells and, where they are at hand, on real ones."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from cellseg_d2.cli import evaluate as tool
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from tests.competition_files import write_predicted, write_train_csv
from tests.quick_python import quick_python

HEIGHT, WIDTH = 40, 50
SQUARE = MaskCrop(0, 0, np.ones((10, 10), bool))
MOST = MaskCrop(0, 0, np.ones((8, 10), bool))  # IoU 0.8 with SQUARE: a hit at 6 of 10 thresholds
APART = MaskCrop(20, 20, np.ones((10, 10), bool))
TRUTH = {"a": [SQUARE], "b": [SQUARE, APART], "c": [APART]}
TYPES = {"a": "cort", "b": "cort", "c": "astro"}
PREDICTED = {"a": [MOST], "b": [SQUARE], "other": [SQUARE]}
KEYS = {"mean", "per_cell_type", "per_threshold", "per_image"}


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Run the tool in this process; returns its JSON and what it printed."""

    def call(predictions, truth, *options):
        out = tmp_path / "out" / "scores.json"
        assert not tool.main(
            ["--predictions", str(predictions), "--ground-truth", str(truth), "--json", str(out), *options]
        )
        report = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        return report, capsys.readouterr()

    return call


@pytest.fixture
def csv(tmp_path):
    return write_train_csv(tmp_path / "train.csv", TRUTH, HEIGHT, WIDTH, TYPES)


@pytest.fixture
def submission(tmp_path):
    return write_predicted(tmp_path / "submission.csv.gz", PREDICTED, WIDTH)


@pytest.fixture
def coco(tmp_path):
    images = [{"id": i, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH} for i, name in enumerate(TRUTH)]
    annotations = [
        {
            "id": 10 * i + j,
            "image_id": i,
            "category_id": 2 if TYPES[name] == "cort" else 1,
            "segmentation": crop_to_coco(crop, HEIGHT, WIDTH),
            "iscrowd": 0,
        }
        for i, (name, crops) in enumerate(TRUTH.items())
        for j, crop in enumerate(crops)
    ]
    categories = [{"id": 1, "name": "astro"}, {"id": 2, "name": "cort"}]
    path = tmp_path / "instances_val.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def results(tmp_path):
    cells = [(0, MOST, 0.9), (0, APART, 0.3), (1, SQUARE, 0.8)]
    detections = [
        {"image_id": image, "category_id": 2, "segmentation": crop_to_coco(crop, HEIGHT, WIDTH), "score": score}
        for image, crop, score in cells
    ]
    path = tmp_path / "coco_results.json"
    path.write_text(json.dumps(detections))
    return path


def test_scores_and_what_is_printed(evaluate, submission, csv):
    report, printed = evaluate(submission, csv)
    assert report.keys() >= KEYS
    assert report["per_image"] == {"a": 0.6, "b": 0.5, "c": 0}
    assert report["mean"] == pytest.approx(1.1 / 3)
    assert report["per_cell_type"] == {"cort": pytest.approx(0.55), "astro": 0}
    assert list(report["per_threshold"]) == [f"{percent / 100:.2f}" for percent in range(50, 100, 5)]
    assert report["per_threshold"]["0.75"] == pytest.approx(1.5 / 3)
    assert report["per_threshold"]["0.80"] == pytest.approx(0.5 / 3)
    assert (report["tp50"], report["fp50"], report["fn50"]) == (2, 0, 2)
    assert "predicted images that the ground truth lacks are left out: 1" in printed.err
    assert ["all", "3", "0.367", "1.000", "0.500", "2", "0", "2"] in [line.split() for line in printed.out.splitlines()]


def test_only_predicted_images(evaluate, submission, csv):
    assert evaluate(submission, csv, "--only-predicted")[0]["per_image"] == {"a": 0.6, "b": 0.5}


def test_chosen_images(evaluate, submission, csv, tmp_path):
    (tmp_path / "ids.csv").write_text("id,predicted\nb,\nc,\n")
    options = ["--ids", str(tmp_path / "ids.csv"), "--exclude", "c"]
    assert evaluate(submission, csv, *options)[0]["per_image"] == {"b": 0.5}


@pytest.mark.parametrize("prediction", ["submission", "results"])
@pytest.mark.parametrize("truth", ["csv", "coco"])
def test_all_forms_give_the_same_scores(evaluate, request, prediction, truth):
    if (prediction, truth) == ("results", "csv"):
        with pytest.raises(CellSegError, match="not one of its images"):  # numbers of images mean nothing to a CSV
            evaluate(request.getfixturevalue(prediction), request.getfixturevalue(truth))
        return
    report, _ = evaluate(request.getfixturevalue(prediction), request.getfixturevalue(truth))
    assert report["per_image"] == {"a": 0.6, "b": 0.5, "c": 0}
    assert report["per_cell_type"] == {"cort": pytest.approx(0.55), "astro": 0}


def test_score_threshold(evaluate, results, coco):
    assert evaluate(results, coco, "--score-threshold", "0.3")[0]["per_image"]["a"] == pytest.approx(0.3)
    assert evaluate(results, coco, "--score-threshold", "0.85")[0]["per_image"]["b"] == 0


def test_overlapping_submission_is_scored_as_it_stands_with_a_warning(evaluate, csv, tmp_path):
    path = write_predicted(tmp_path / "overlapping.csv", {"a": [MOST, SQUARE]}, WIDTH)
    report, printed = evaluate(path, csv, "--only-predicted")
    assert report["mean"] == 0.5
    assert "warning" in printed.err
    assert "contested pixels: 80" in printed.err
    report, printed = evaluate(path, csv, "--only-predicted", "--overlaps", "resolve")
    assert report["mean"] == pytest.approx(0.3)
    assert printed.err == ""


def test_average_precision(evaluate, results, coco):
    report, printed = evaluate(results, coco, "--coco-protocol", "livecell")
    assert report.keys() >= KEYS
    segm = report["livecell"]["segm"]
    # Two of three cort cells are found first: precision 1 at 67 of 101 recall levels. No astro cell is found.
    assert (segm["AP-astro"], segm["AP50"]) == (0, pytest.approx(100 * 67 / 101 / 2))
    assert segm["APl"] is None, "no cell is large, and JSON knows no NaN"
    assert "AR2000" in printed.out
    only = evaluate(results, coco, "--coco-protocol", "coco", "--exclude", "b", "c")[0]["coco"]["segm"]
    assert only["AP"] == pytest.approx(70), "a single cell found with IoU 0.8, which COCO counts at 0.8"


def test_average_precision_needs_coco_files(evaluate, submission, csv):
    with pytest.raises(CellSegError, match="needs COCO results and a COCO ground truth"):
        evaluate(submission, csv, "--coco-protocol", "livecell")


def run(repository, *options, python=None):
    command = [*(python or quick_python()), str(repository / "tools" / "evaluate.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/")


def test_help_answers_at_once(repository):
    before = os.times()
    done = run(repository, "--help", python=[sys.executable])
    after = os.times()
    assert done.returncode == 0
    assert "examples:" in done.stdout
    # Of the processor, which other work on the machine does not take.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_bad_input_is_one_sentence_and_exit_code_2(repository, csv, tmp_path):
    (tmp_path / "p.csv").write_text("id,annotation\na,1 2\n")
    done = run(repository, "--predictions", tmp_path / "p.csv", "--ground-truth", csv, "--json", tmp_path / "o.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "lacks the column 'predicted'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o.json").exists()
    assert run(repository, "--predictions", tmp_path / "p.csv").returncode == 2


@pytest.mark.parametrize(("peer", "score"), [("cellpose", 0.342), ("torchvision_mask_rcnn", 0.392)])
def test_real_predictions_of_others(evaluate, shared_data, peer, score):
    """36 real images; the figures are those known for these files (about .34 and .39), to three digits."""
    truth = shared_data / "sartorius" / "train.csv"
    predictions = shared_data / "peers" / f"{peer}.csv.gz"
    start = time.perf_counter()
    report, printed = evaluate(predictions, truth, "--only-predicted")
    print(f"{peer}: {report['mean']:.4f} on {len(report['per_image'])} images in {time.perf_counter() - start:.1f} s")
    assert len(report["per_image"]) == 36
    assert report["mean"] == pytest.approx(score, abs=0.0005)
    assert set(report["per_cell_type"]) == {"astro", "cort", "shsy5y"}
    assert printed.err == "", "the peers' masks do not overlap"
    # Images whose truth is only approximate are not among the 36, so that leaving them out changes nothing.
    approximate = ["1e55de6c2a34", "4378ec854810", "4b701c599d33", "fe3e30f849f4"]
    assert evaluate(predictions, truth, "--only-predicted", "--exclude", *approximate)[0] == report
    everything = evaluate(predictions, truth)[0]
    assert len(everything["per_image"]) == 41
    assert everything["mean"] == pytest.approx(report["mean"] * 36 / 41), "five images without rows count as empty"
