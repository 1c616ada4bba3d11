"""Planning, recording and gathering of folds; the trainings themselves are stand-ins, see tests/cli for real ones."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellseg_d2.config import load_config
from cellseg_d2.cross_validation.cross_validation import plan, prepare_output, train_fold
from cellseg_d2.cross_validation.fold_process import run_training
from cellseg_d2.cross_validation.fold_summary import Spread, summarize_folds
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import coco_to_crop, crop_to_kaggle
from cellseg_d2.predictions.submission import read_submission, write_submission
from tests.discs import write_disc_dataset
from tests.quick_python import quick_python

# In place of train-net: records as it does, predicts the truth (fold 0) or nothing (fold 1).
STAND_IN = """
import json, os, shutil, sys
from pathlib import Path
options = dict(zip(sys.argv[6::2], sys.argv[7::2]))
folder, val = Path(options["OUTPUT_DIR"]), options["DATASETS.TEST"][2:-3]
with open(folder / "metrics.json", "w") as file:
    for iteration in (19, 39):
        print(json.dumps({"iteration": iteration, "total_loss": 1.05, "gpu_memory_mib": 1536.0}), file=file)
    file.write('{"iteration": 40, "cut o')
print(sys.argv, os.environ["NO_COLOR"])
if "fold1" in val and "SEED" in options:
    if options["SEED"] == "9":
        os.kill(os.getpid(), 9)
    print("error: there are no weights", file=sys.stderr)
    sys.exit(2)
(folder / "inference" / val).mkdir(parents=True, exist_ok=True)
source = Path(__file__).with_name(val + ".csv")
if source.exists():
    shutil.copy(source, folder / "inference" / val / "submission.csv")
"""


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """Two folds: what one trains on is what the other validates."""
    root = tmp_path / "datasets"
    folder = write_disc_dataset(root)
    for fold, parts in enumerate((("train", "val"), ("val", "train"))):
        for part, name in zip(parts, ("train", "val"), strict=True):
            shutil.copy(folder / f"instances_{part}.json", folder / f"instances_fold{fold}_{name}.json")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    return folder


@pytest.fixture
def program(tmp_path, datasets):
    """The stand-in; fold 0 predicts the truth, fold 1 nothing."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    truth = json.loads((datasets / "instances_fold0_val.json").read_text())
    cells = {f"val{index}": [] for index in range(4)}
    for annotation in truth["annotations"]:
        cells[f"val{annotation['image_id'] - 1}"].append(crop_to_kaggle(coco_to_crop(annotation["segmentation"]), 96))
    write_submission(tmp_path / "discs_fold0_val.csv", cells)
    write_submission(tmp_path / "discs_fold1_val.csv", {f"train{index}": [] for index in range(4)})
    return [sys.executable, tmp_path / "stand_in.py"]


@pytest.fixture
def make(repository, datasets, tmp_path):
    config_file = repository / "configs/quickstart/instant_test.yaml"

    def call(*opts, folds=2):
        opts = [*map(str, opts), "OUTPUT_DIR", str(tmp_path / "cv")]
        return plan(load_config(config_file, opts), "discs", folds)

    call.config_file = config_file
    return call


def test_folds_train_in_processes_and_their_score_is_gathered(make, program, tmp_path):
    validation = make()
    prepare_output(validation, validation.folds, resume=False)
    for fold in validation.folds:
        assert not fold.finished
        attempt = train_fold(fold, make.config_file, ["SOLVER.BASE_LR", "0.1"], program)
        assert (attempt.exit_code, attempt.reason, attempt.gpu_memory_mib) == (0, "", 1536)
        # Linux starts a process's peak with the memory of the one that started it.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert 1 < attempt.peak_memory_mib < max(1000, own + 10)
        assert fold.finished
        assert fold.attempts == [attempt]
    log = (validation.folds[1].folder / "console.log").read_text()
    assert "'--resume', 'SOLVER.BASE_LR', '0.1'" in log
    assert "\"('discs_fold1_train',)\"" in log

    summary = summarize_folds(validation, tmp_path / "oof.csv")
    oof = read_submission(tmp_path / "oof.csv")
    assert sorted(oof) == sorted([f"{part}{index}" for part in ("train", "val") for index in range(4)])
    # Fold 0 is perfect. Fold 1 predicts nothing: right only for its one image without cells.
    assert {index: score.mean for index, score in summary.scores.items()} == {0: 1.0, 1: 0.25}
    assert (summary.score.mean, summary.score.deviation) == (0.625, pytest.approx(0.75 / 2**0.5))
    assert summary.out_of_fold.mean == pytest.approx((4 + 1) / 8)
    assert str(summary.per_cell_type["bright"]) == "0.500 ± 0.707"

    lines = [line.split() for line in summary.table().splitlines()]
    assert lines[2][:6] == ["fold", "0", "4", "1.000", "1.000", "1.000"]
    assert ["out-of-fold", "8", "0.625", "0.500", "0.500"] in lines
    header, rule, row = summary.markdown("a | b", "python tools/x.py A|B").splitlines()
    assert header.count("|") == rule.count("|") == row.count("|") - row.count("\\|") == 10
    assert "0.625 ± 0.530" in row
    assert "GPU 1.5 GiB" in row
    json.dumps(summary.to_dict())


def test_excluded_images_are_predicted_but_not_scored(make, program, tmp_path):
    validation = make()
    for fold in validation.folds:
        train_fold(fold, make.config_file, [], program)
    summary = summarize_folds(validation, tmp_path / "oof.csv", ["train0", "train1", "train2"])
    assert summary.scores[1].mean == 1.0  # only the image without cells is left
    assert summary.out_of_fold.mean == 1.0
    assert "train0" in read_submission(tmp_path / "oof.csv")
    every = summarize_folds(validation, tmp_path / "oof.csv", [f"train{index}" for index in range(4)])
    assert list(every.scores) == [0]
    assert every.score.deviation is None
    assert every.table().splitlines()[3].split()[:6] == ["fold", "1", "0", "–", "–", "–"]
    with pytest.raises(CellSegError, match="lacks: 1, such as nobody"):
        summarize_folds(validation, tmp_path / "oof.csv", ["nobody"])


def test_images_of_one_name_in_the_folders_of_two_folds_are_both_kept(make, program, datasets, tmp_path):
    """Each fold's own files call its image day1, as no other of it is called so."""
    parts = {"val0": ("A/day1", "discs_fold0_val"), "train0": ("B/day1", "discs_fold1_val")}
    for path in datasets.glob("instances_fold*.json"):
        content = json.loads(path.read_text())
        for entry in content["images"]:
            entry["source_id"] = parts.get(Path(entry["file_name"]).stem, (Path(entry["file_name"]).stem,))[0]
            entry["file_name"] = f"{entry['source_id']}.png"
        path.write_text(json.dumps(content))
    for old, (_, dataset) in parts.items():
        rows = read_submission(tmp_path / f"{dataset}.csv")
        write_submission(tmp_path / f"{dataset}.csv", {"day1": rows.pop(old), **rows})
    validation = make()
    assert {"A/day1", "B/day1"} <= validation.images
    for fold in validation.folds:
        assert train_fold(fold, make.config_file, [], program).exit_code == 0
    summary = summarize_folds(validation, tmp_path / "oof.csv", ["B/day1"])
    oof = read_submission(tmp_path / "oof.csv")
    assert len(oof) == 8
    assert (len(oof["A/day1"]), len(oof["B/day1"])) == (5, 0)
    assert sorted(summary.out_of_fold.images) == sorted(validation.images - {"B/day1"})
    assert summary.out_of_fold.mean == pytest.approx((4 + 1) / 7)


@pytest.mark.parametrize(("seed", "code", "reason"), [(1, 2, "there are no weights"), (9, -9, "SIGKILL; often")])
def test_a_fold_that_fails_says_why_and_can_be_repeated(make, program, tmp_path, seed, code, reason):
    validation = make()
    first, second = validation.folds
    for fold in validation.folds:
        train_fold(fold, make.config_file, ["SEED", str(seed)], program)
    assert first.finished
    assert not second.finished
    assert second.attempts[0].exit_code == code
    assert reason in second.attempts[0].reason
    summary = summarize_folds(validation, tmp_path / "oof.csv")
    assert list(summary.scores) == [0]
    assert "not finished: fold 1" in summary.table()
    assert set(read_submission(tmp_path / "oof.csv")) == first.images

    train_fold(second, make.config_file, [], program)
    assert second.finished
    assert len(second.attempts) == 2
    summary = summarize_folds(validation, tmp_path / "oof.csv")
    seconds = summary.to_dict()["per_fold"][1]["seconds"]
    assert seconds == pytest.approx(sum(attempt.seconds for attempt in second.attempts))


def test_a_fold_without_predictions_is_not_finished(make, program, tmp_path):
    (tmp_path / "discs_fold1_val.csv").unlink()
    fold = make().folds[1]
    assert train_fold(fold, make.config_file, [], program).exit_code == 0
    assert not fold.finished


def test_predictions_for_other_images_are_refused(make, program, tmp_path):
    validation = make()
    train_fold(validation.folds[0], make.config_file, [], program)
    write_submission(validation.folds[0].submission, {"train0": []})
    with pytest.raises(CellSegError, match="not about the images of discs_fold0_val"):
        summarize_folds(validation, tmp_path / "oof.csv")


def test_an_output_folder_is_not_used_twice_by_mistake(make, program):
    validation = make()
    prepare_output(validation, validation.folds, resume=False)
    train_fold(validation.folds[0], make.config_file, [], program)
    with pytest.raises(CellSegError, match="--resume"):
        prepare_output(validation, validation.folds, resume=False)
    prepare_output(validation, validation.folds[1:], resume=False)
    prepare_output(make(), validation.folds, resume=True)
    prepare_output(make("DATALOADER.NUM_WORKERS", 3), validation.folds, resume=True)  # changes no result
    with pytest.raises(CellSegError, match=r"SOLVER.MAX_ITER 8, now it is 9"):
        prepare_output(make("SOLVER.MAX_ITER", 9), validation.folds[1:], resume=True)
    (validation.output / "cross_validation.json").unlink()
    with pytest.raises(CellSegError, match="choose another OUTPUT_DIR"):
        prepare_output(validation, validation.folds, resume=True)


def test_a_dataset_that_changed_is_not_resumed(make, program, datasets):
    validation = make()
    prepare_output(validation, validation.folds, resume=False)
    train_fold(validation.folds[0], make.config_file, [], program)
    path = datasets / "instances_fold1_train.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(CellSegError, match="converted again"):
        prepare_output(make(), validation.folds, resume=True)


def test_folds_that_do_not_fit_together(make, datasets):
    with pytest.raises(CellSegError, match="discs_fold2_train"):
        make(folds=3)
    with pytest.raises(CellSegError, match="at least 2"):
        make(folds=1)
    with pytest.raises(CellSegError, match="competition"):
        make("TEST.EVALUATORS", "['coco']")
    original = (datasets / "instances_fold1_val.json").read_text()
    shutil.copy(datasets / "instances_fold0_val.json", datasets / "instances_fold1_val.json")
    with pytest.raises(CellSegError, match="is in discs_fold1_train and in discs_fold1_val"):
        make()
    shutil.copy(datasets / "instances_train.json", datasets / "instances_fold1_train.json")
    with pytest.raises(CellSegError, match="validated in the folds 0 and 1"):
        make()
    content = json.loads(original)
    content["images"] = content["images"][:2]
    (datasets / "instances_fold1_val.json").write_text(json.dumps(content))
    shutil.copy(datasets / "instances_val.json", datasets / "instances_fold1_train.json")
    with pytest.raises(CellSegError, match="none of the 2 folds validates: 2"):
        make()


def test_spread():
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    assert Spread.of([0.1, 0.3]).deviation == pytest.approx(0.02**0.5)
    assert str(Spread.of([0.5])) == "0.500"


def test_progress_is_that_of_the_metrics(tmp_path):
    """From the second line on, which the run writes while it goes on; here, in lines."""
    child = f"""
import json, time
for iteration in (19, 39):
    with open({str(tmp_path / "metrics.json")!r}, "a") as file:
        print(json.dumps({{"iteration": iteration, "total_loss": 1.25}}), file=file)
        print(json.dumps({{"iteration": iteration, "competition/mean": 0.5}}), file=file)
    time.sleep(1)
"""
    (tmp_path / "config.yaml").write_text("SOLVER: {MAX_ITER: 80}")
    code = f"""
import sys
from pathlib import Path
from cellseg_d2.cross_validation import fold_process
from cellseg_d2.io import progress
progress.PAUSE = 0
fold_process.run_training([sys.executable, "-c", {child!r}], Path({str(tmp_path)!r}), "fold 0")
"""
    result = subprocess.run([*quick_python(), "-c", code], capture_output=True, text=True, check=True)
    assert "20 of 80" in result.stderr
    assert "40 of 80" in result.stderr
    assert "loss 1.25" in result.stderr


def test_an_interrupted_run_leaves_no_process_behind(tmp_path):
    """Ctrl-C in a terminal reaches this process; the training must end too, and be recorded."""
    child = "import time; print('started', flush=True); time.sleep(60)"
    code = f"""
import signal, sys
from pathlib import Path
from cellseg_d2.cross_validation.fold_process import run_training
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have jobs in the background ignore it
run_training([sys.executable, "-c", {child!r}], Path({str(tmp_path)!r}), "title", on_end=lambda a: print(a.reason))
"""
    process = subprocess.Popen([*quick_python(), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not ((log := tmp_path / "console.log").exists() and "started" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert output.strip() == "interrupted"
    assert "KeyboardInterrupt" in errors


@pytest.mark.skipif(sys.platform != "linux", reason="the process is watched through /proc")
def test_a_killed_run_leaves_no_process_behind_and_can_be_repeated(make, program, tmp_path):
    """Else two trainings would write to one folder when it is started again with --resume."""
    validation = make()
    prepare_output(validation, validation.folds, resume=False)
    train_fold(validation.folds[0], make.config_file, [], program)
    fold = validation.folds[1]
    child = "import os, time; from cellseg_d2.processes import end_with_starter; end_with_starter();"
    child += "print('started', os.getpid(), flush=True); time.sleep(60)"
    code = f"""
import sys
from pathlib import Path
from cellseg_d2.cross_validation.fold_process import run_training
run_training([sys.executable, "-c", {child!r}], Path({str(fold.folder)!r}), "title")
"""
    process = subprocess.Popen([*quick_python(), "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = fold.folder / "console.log", time.monotonic() + 60
    while not (log.exists() and "started" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    training = int(log.read_text().split()[1])
    assert is_running(training)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while is_running(training):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    again = make()
    assert [fold.finished for fold in again.folds] == [True, False]
    prepare_output(again, again.folds, resume=True)
    train_fold(again.folds[1], make.config_file, [], program)
    assert len(summarize_folds(again, tmp_path / "oof.csv").scores) == 2


def is_running(process):
    """Whether there is such a process that has not ended yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_where_the_system_tells_no_memory_all_else_is_known(make, program, monkeypatch, tmp_path):
    """As on Windows, where neither wait4 nor SIGKILL exist."""
    for module, name in ((os, "wait4"), (os, "WNOHANG"), (signal, "SIGKILL")):
        monkeypatch.delattr(module, name)
    validation = make()
    for fold in validation.folds:
        attempt = train_fold(fold, make.config_file, [], program)
        assert (attempt.exit_code, attempt.peak_memory_mib, attempt.gpu_memory_mib) == (0, None, 1536)
    summary = summarize_folds(validation, tmp_path / "oof.csv")
    assert [fold["peak_memory_mib"] for fold in summary.to_dict()["per_fold"]] == [None, None]
    assert "GPU 1.5 GiB" in summary.table()
    assert "| GPU 1.5 GiB |" in summary.markdown("what", "command")


def test_a_program_that_says_nothing(tmp_path):
    attempt = run_training([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, "title")
    assert (attempt.exit_code, attempt.reason) == (3, "it ended with exit code 3 without a message")
    attempt = run_training([sys.executable, "-c", "1 / 0"], tmp_path, "title")
    assert attempt.reason == "ZeroDivisionError: division by zero"
    attempt = run_training([sys.executable, "-c", "raise ValueError('first\\nsecond\\nthird')"], tmp_path, "title")
    assert attempt.reason == "ValueError: first"
    assert attempt.hardware
