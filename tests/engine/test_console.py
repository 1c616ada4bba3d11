"""What a training says: little on the console, everything in its log, and scores from the start on."""

import json
import logging
import re
from pathlib import Path

import pytest
from detectron2.utils.events import EventStorage

from cellseg_d2.cli import train_net
from cellseg_d2.config import default_config
from cellseg_d2.engine import console
from cellseg_d2.engine.console import ConsoleWriter, set_up_logging, tell_beginning, tell_end, tell_score, usual_length

SHORT = ("MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "4", "SOLVER.CHECKPOINT_PERIOD", "4", "TEST.EVAL_PERIOD", "2")


@pytest.fixture
def said(caplog):
    """Messages for the console, each once."""
    caplog.set_level(logging.INFO, console.__name__)
    logging.getLogger("cellseg_d2").propagate = True  # a run before this one may have taken the messages
    return lambda: [record.getMessage() for record in caplog.records if record.name == console.__name__]


@pytest.fixture
def cfg(tmp_path):
    cfg = default_config()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("a_train",), ("a_val",)
    cfg.MODEL.WEIGHTS, cfg.SOLVER.IMS_PER_BATCH = "w.pth", 2
    return cfg


def sizes(cells):
    return {"a_train": {"images": 7, "cells": cells}, "a_val": {"images": 1, "cells": 9}}


def test_few_lines_are_printed_and_all_of_them_logged(repository, dataset_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(dataset_root))
    config = str(repository / "configs/quickstart/instant_test.yaml")
    train_net.main(["--config-file", config, *SHORT, "OUTPUT_DIR", str(tmp_path / "first")])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) < 15
    assert all(re.match(r"\[\d\d:\d\d:\d\d\] \S", line) for line in printed)
    expected = ("training on discs_train", "results go to", "score .* after iteration 2", "iteration 4 of 4", "done: ")
    assert all(any(re.search(part, line) for line in printed) for part in expected)
    log = (tmp_path / "first/log.txt").read_text()
    assert all(line.split("] ", 1)[1] in log for line in printed)
    assert "configuration:" in log
    assert "loss_mask" in log

    weights = ("MODEL.WEIGHTS", str(tmp_path / "first/model_final.pth"))
    train_net.main(["--config-file", config, *SHORT, "OUTPUT_DIR", str(tmp_path / "second"), *weights])
    scores = [line for line in capsys.readouterr().out.splitlines() if "] score" in line]
    assert len(scores) == 3
    assert "of the weights that this training begins from" in scores[0]
    rows = [json.loads(line) for line in (tmp_path / "second/metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "competition/mean" in row] == [0, 1, 4]

    train_net.main(["--config-file", str(tmp_path / "second/config.yaml"), "--eval-only", *weights])
    printed = capsys.readouterr().out
    assert "precision" in printed, "the table of scores is what an evaluation is for"
    assert "configuration:" not in printed


@pytest.mark.parametrize(("cells", "length", "advice"), [(19, 2700, 150), (4000, 2000, None), (40_000, 300, 6000)])
def test_a_length_far_from_the_usual_one_for_the_number_of_cells_is_said(cfg, said, cells, length, advice):
    cfg.SOLVER.MAX_ITER = length
    tell_beginning(cfg, sizes(cells), 0)
    lines = [line for line in said() if "usual" in line]
    assert [f"SOLVER.MAX_ITER {advice} " in line for line in lines] == ([True] if advice else [])


def test_the_usual_length_grows_with_cells_and_falls_with_the_batch():
    lengths = [usual_length(cells, True, 2) for cells in (0, 100, 1000, 10_000, 100_000)]
    assert lengths == sorted(lengths)
    assert usual_length(1000, False, 2) > 3 * usual_length(1000, True, 2)
    assert usual_length(1000, True, 8) == pytest.approx(usual_length(1000, True, 2) / 4, rel=0.1)
    assert usual_length(1, True, 10**6) == 1


def test_scores_are_told_beside_the_best_one(cfg, said):
    with EventStorage() as storage:
        for iteration, score in enumerate([0.25, 0.5, 0.125]):
            storage.iter = iteration
            storage.put_scalar(cfg.TEST.BEST_METRIC, score)
            tell_score(cfg, storage, iteration)
        assert said() == [
            "score 0.25 of the weights that this training begins from",
            "score 0.5 after iteration 1, a new best (before 0.25)",
            "score 0.125 after iteration 2 (best: 0.5)",
        ]


@pytest.mark.parametrize(("scores", "said_so"), [((0.5, 0.25), True), ((0.25, 0.5), False)])
def test_a_training_that_gains_nothing_says_so(cfg, said, scores, said_so):
    with EventStorage() as storage:
        for iteration, score in enumerate(scores):
            storage.iter = iteration
            storage.put_scalar(cfg.TEST.BEST_METRIC, score)
        tell_end(cfg, storage)
    assert any("no score is better than that of w.pth (0.5)" in line for line in said()) == said_so
    assert "done: the model is" in said()[-1]


@pytest.mark.parametrize(
    ("scores", "kept"),
    [((0.5, 0.25), "has the best score after that;"), ((0.25, 0.5), "has the best score;"), ((), "model_final.pth;")],
)
def test_the_last_line_names_a_best_model_of_this_training_only(cfg, said, scores, kept):
    (Path(cfg.OUTPUT_DIR) / "model_best.pth").touch()
    with EventStorage() as storage:
        for iteration, score in enumerate(scores):
            storage.iter = iteration
            storage.put_scalar(cfg.TEST.BEST_METRIC, score)
        tell_end(cfg, storage)
    assert kept in said()[-1]


def test_each_run_of_a_process_has_all_its_log(tmp_path):
    """Also one in the folder of a run before, and of each only its own."""
    own = logging.getLogger("cellseg_d2.of_a_test")
    try:
        for number, folder in enumerate(("a", "b", "a")):
            set_up_logging(str(tmp_path / folder), 0)
            own.info("message %d", number)
        assert re.findall(r"message \d", (tmp_path / "a/log.txt").read_text()) == ["message 0", "message 2"]
        assert re.findall(r"message \d", (tmp_path / "b/log.txt").read_text()) == ["message 1"]
        set_up_logging(str(tmp_path / "a"), 1)
        own.info("message 3")
        assert "message 3" in (tmp_path / "a/log.txt.rank1").read_text()
    finally:
        set_up_logging(str(tmp_path / "rest"), 0)


def test_a_line_comes_now_and_then_and_at_the_end(said, monkeypatch):
    clock = iter([0.0, 1.0, 30.0, 31.0, 32.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    writer = ConsoleWriter(100)
    with EventStorage() as storage:
        for done in (20, 40, 60, 100, 101):
            storage.iter = done - 1
            storage.put_scalars(total_loss=1.5, time=3.0)
            writer.write()
    assert said() == [
        "iteration 20 of 100, 0:04:00 left, loss 1.5",
        "iteration 60 of 100, 0:02:00 left, loss 1.5",
        "iteration 100 of 100, 0:00:00 left, loss 1.5",
    ]
