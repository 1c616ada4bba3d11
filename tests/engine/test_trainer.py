"""A short training run: it learns, records, resumes where it was, and its weights predict."""

import csv
import json
import math

import pytest
import torch

from cellseg_d2.config import load_config
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.errors import CellSegError


@pytest.fixture
def config(repository, dataset_root, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(dataset_root))

    def make(output, *opts):
        path = repository / "configs/quickstart/instant_test.yaml"
        return prepare_training(load_config(path, ["OUTPUT_DIR", str(output), *map(str, opts)]))

    return make


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_training_resumes_where_it_was(config, tmp_path):
    cfg = config(tmp_path, "SOLVER.GRADIENT_ACCUMULATION", 3, "SOLVER.MAX_ITER", 8)
    first = CellTrainer(cfg)
    first.resume_or_load(resume=False)
    first.max_iter = 4  # as if interrupted: the schedule is still that of 8 iterations
    first.train()
    assert [int(row["iteration"]) for row in rows_of(tmp_path / "losses.csv")] == [0, 1, 2, 3]

    second = CellTrainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 4
    assert second.scheduler.state_dict() == first.scheduler.state_dict()
    before, after = first.optimizer.state_dict(), second.optimizer.state_dict()
    assert after["accumulation"]["count"] == 1  # 4 iterations, one step every 3
    assert after["param_groups"] == before["param_groups"]
    for index, state in before["state"].items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(after["state"][index][key]), torch.as_tensor(value))
    second.train()

    rows = rows_of(tmp_path / "losses.csv")
    assert [int(row["iteration"]) for row in rows] == list(range(8))
    losses = [name for name in rows[0] if name.startswith("loss_")]
    assert {"loss_mask", "loss_cls", "loss_rpn_cls"} <= set(losses)
    for row in rows:
        total = sum(float(row[name]) for name in losses)
        assert math.isclose(float(row["total_loss"]), total, rel_tol=1e-3)
    for name in ("model_best.pth", "model_final.pth", "curves.png", "metrics.json", "best_score.json"):
        assert (tmp_path / name).stat().st_size > 0
    best = json.loads((tmp_path / "best_score.json").read_text())
    assert best["metric"] == "competition/mean"


def test_the_best_score_survives_resumption(config, tmp_path):
    cfg = config(tmp_path, "SOLVER.MAX_ITER", 4)
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    (tmp_path / "best_score.json").write_text('{"metric": "competition/mean", "score": 2.0, "iteration": 3}')
    marker = (tmp_path / "model_best.pth").stat().st_mtime_ns

    cfg = config(tmp_path, "SOLVER.MAX_ITER", 8)
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert (tmp_path / "model_best.pth").stat().st_mtime_ns == marker, "no score can be better than 2"
    assert json.loads((tmp_path / "best_score.json").read_text())["score"] == 2.0


def test_the_loss_falls(config, tmp_path):
    opts = ("SOLVER.MAX_ITER", 60, "SOLVER.BASE_LR", 0.002, "TEST.EVAL_PERIOD", 0, "DATASETS.TEST", "()")
    trainer = CellTrainer(config(tmp_path, *opts))
    trainer.resume_or_load(resume=False)
    trainer.train()
    totals = [float(row["total_loss"]) for row in rows_of(tmp_path / "losses.csv")]
    assert len(totals) == 60
    assert sum(totals[-10:]) < 0.8 * sum(totals[:10])


def test_full_memory_is_a_sentence_that_says_what_to_lower(config, tmp_path):
    trainer = CellTrainer(config(tmp_path, "SOLVER.MAX_ITER", 3, "SOLVER.IMS_PER_BATCH", 2))

    def fail(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    trainer._trainer.model.forward = fail
    with pytest.raises(CellSegError, match=r"iteration 0 does not fit.*SOLVER.IMS_PER_BATCH 2 and double"):
        trainer.train()
