"""tools/analyze_errors.py as a user runs it."""

import json
import subprocess

import cv2
import numpy as np
import pytest

from cellseg_d2.cli import analyze_errors
from tests.competition_files import write_predicted, write_train_csv
from tests.quick_python import quick_python
from tests.shapes import box

HEIGHT, WIDTH = 60, 80


TRUTH = {
    "merged": [box(0, 0, 10, 10), box(10, 0, 10, 10)],
    "split": [box(0, 0, 20, 10)],
    "perfect": [box(30, 30, 10, 10)],
}
TYPES = {"merged": "cort", "split": "astro", "perfect": "cort"}
PREDICTED = {
    "merged": [box(0, 0, 20, 10)],
    "split": [box(0, 0, 10, 10), box(10, 0, 10, 10)],
    "perfect": [box(30, 30, 10, 10)],
}


@pytest.fixture
def files(tmp_path):
    write_train_csv(tmp_path / "train.csv", TRUTH, HEIGHT, WIDTH, TYPES)
    write_predicted(tmp_path / "submission.csv", PREDICTED, WIDTH)
    (tmp_path / "images").mkdir()
    for name in TRUTH:
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((HEIGHT, WIDTH), 100, np.uint8))
    return tmp_path


@pytest.fixture
def analyze(files, capsys):
    def call(*options):
        arguments = ["--predictions", files / "submission.csv", "--ground-truth", files / "train.csv"]
        analyze_errors.main([*map(str, arguments), "--output", str(files / "out"), *map(str, options)])
        return json.loads((files / "out" / "errors.json").read_text()), capsys.readouterr()

    return call


def test_errors_and_pictures_worst_first(analyze, files):
    report, printed = analyze("--images", files / "images")
    assert [image["id"] for image in report["images"]] == ["merged", "split", "perfect"]
    assert report["cells"]["true_counts"] == {"found": 1, "shifted": 0, "merged": 2, "split": 1, "missed": 0}
    assert report["cells"]["predicted_counts"] == {"hit": 1, "shifted": 0, "merging": 1, "fragment": 2, "spurious": 0}
    assert report["score"]["mean"] == pytest.approx(1 / 3)
    assert report["score_if_corrected"]["merged"] == pytest.approx(2 / 3)
    assert set(report["definitions"]["true cells"]) == {"found", "shifted", "merged", "split", "missed"}
    pictures = sorted(path.name for path in (files / "out" / "pictures").iterdir())
    assert pictures == ["1_merged.png", "2_split.png", "3_perfect.png"]
    plots = {path.name for path in (files / "out").glob("*.png")}
    assert plots == {
        "errors_by_type.png",
        "errors_by_size.png",
        "errors_by_crowding.png",
        "score_if_corrected.png",
        "score_by_type.png",
    }
    assert (files / "out" / "tables.txt").read_text().strip() in printed.out


def test_chosen_images_and_no_stale_pictures(analyze, files):
    analyze("--images", files / "images")
    (files / "out" / "pictures" / "1_other.png").write_text("not ours")
    report, _ = analyze("--images", files / "images", "--exclude", "merged", "--pictures", "1")
    assert [image["id"] for image in report["images"]] == ["split", "perfect"]
    pictures = sorted(path.name for path in (files / "out" / "pictures").iterdir())
    assert pictures == ["1_other.png", "1_split.png"]


def test_images_that_are_not_there_are_named(analyze, files):
    (files / "images" / "split.png").unlink()
    _, printed = analyze("--images", files / "images")
    assert "not drawn: 1" in printed.err
    assert len(list((files / "out" / "pictures").iterdir())) == 2
    _, printed = analyze()
    assert "0 pictures" in printed.out


def test_a_mistake_is_one_sentence(repository, files):
    command = [*quick_python(), str(repository / "tools" / "analyze_errors.py"), "--predictions", "none.csv"]
    command += ["--ground-truth", str(files / "train.csv"), "--output", str(files / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: none.csv")
    assert len(result.stderr.splitlines()) == 1
    assert not (files / "out").exists()
