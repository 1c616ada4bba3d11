"""tools/cross_validate.py with real trainings, tiny ones: all folds, a crash, and going on after it."""

import json
import re
import shutil
import signal
import sys

import pytest

from cellseg_d2.cli import cross_validate as tool
from cellseg_d2.errors import CellSegError
from cellseg_d2.predictions.submission import read_submission
from tests.discs import write_disc_dataset


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Two folds: what one trains on is what the other validates."""
    root = tmp_path_factory.mktemp("datasets")
    folder = write_disc_dataset(root)
    for fold, parts in enumerate((("train", "val"), ("val", "train"))):
        for part, name in zip(parts, ("train", "val"), strict=True):
            shutil.copy(folder / f"instances_{part}.json", folder / f"instances_fold{fold}_{name}.json")
    return root


@pytest.fixture
def cross_validate(repository, datasets, monkeypatch, capsys):
    """Run the tool in this process, which spares an import of PyTorch; returns its exit code and what it printed."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(repository))  # for the trainings, as tools/cross_validate.py does
    handler = signal.getsignal(signal.SIGTERM)
    config_file = repository / "configs/quickstart/instant_test.yaml"

    def call(*arguments):
        code = tool.main(["--config-file", str(config_file), "--dataset", "discs", *map(str, arguments)])
        return code, capsys.readouterr()

    yield call
    signal.signal(signal.SIGTERM, handler)


def test_a_crash_is_named_and_repaired_and_finished_folds_are_kept(cross_validate, monkeypatch, tmp_path):
    output = tmp_path / "cv"
    opts = ["OUTPUT_DIR", output, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0]
    opts += ["TEST.POSTPROCESS.SCORE_THRESHOLDS", "[0.99]"]  # predicts nothing: right where there are no cells
    arguments = ["--folds", 2, "--resume", "--score-exclude", "val0", *opts]
    code, printed = cross_validate("--folds", 2, "--only-folds", 0, *opts)
    assert code == 0, printed.err
    first = {name: (output / "fold0" / name).stat().st_mtime_ns for name in ("model_final.pth", "console.log")}
    assert [path.name for path in output.glob("fold*")] == ["fold0"]
    crash = "raise RuntimeError('bad luck\\nand more of it')"
    with monkeypatch.context() as patch:
        patch.setattr(tool, "TRAIN_NET", (sys.executable, "-c", crash))
        code, printed = cross_validate(*arguments)
    assert code == 1
    assert "fold 0: finished before" in printed.out
    assert re.search(r"error: fold 1 failed after \d+ s: RuntimeError: bad luck", printed.err)
    assert "failed: fold 1" in printed.err.splitlines()[-1]
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary["failed"]) == ["1"]
    assert summary["finished"] == [0]
    assert summary["score"]["deviation"] is None

    code, printed = cross_validate(*arguments)
    assert code == 0, printed.err
    assert {name: (output / "fold0" / name).stat().st_mtime_ns for name in first} == first
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["finished"], summary["failed"], summary["excluded"]) == ([0, 1], {}, ["val0"])
    assert [fold["images"] for fold in summary["per_fold"]] == [3, 4]
    assert [fold["attempts"] for fold in summary["per_fold"]] == [1, 2]
    assert all(fold["peak_memory_mib"] > 100 and fold["seconds"] > 0 for fold in summary["per_fold"])
    oof = read_submission(output / "oof.csv")
    assert sorted(oof) == sorted(f"{part}{index}" for part in ("train", "val") for index in range(4))
    # What the training's own evaluator says of the fold that is scored as a whole.
    competition = json.loads((output / "fold1/inference/discs_fold1_val/competition.json").read_text())
    assert summary["per_fold"][1]["mean"] == pytest.approx(competition["mean"]) == pytest.approx(1 / 4)
    row = (output / "summary.md").read_text()
    assert "cellseg-d2 cross-validate --config-file" in row
    assert "mean ± SD" in printed.out
    assert row.strip() in printed.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", 3], "discs_fold2_train"),
        (["--folds", 2, "--only-folds", 2], "--only-folds must be from 0 to 1"),
        (["--folds", 2, "--score-exclude", "nobody"], "such as nobody"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(cross_validate, tmp_path, arguments, message):
    with pytest.raises(CellSegError, match=message):
        cross_validate(*arguments, "OUTPUT_DIR", tmp_path / "cv")
    assert not (tmp_path / "cv").exists()
