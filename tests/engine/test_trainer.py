"""A short training run: it learns, records, resumes where it was, and its weights predict."""

import csv
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
    for name in ("model_best.pth", "model_final.pth", "curves.png", "metrics.json"):
        assert (tmp_path / name).stat().st_size > 0
    assert best_of(tmp_path)["metric"] == "competition/mean"


def best_of(folder):
    """What the last checkpoint knows of the best model."""
    return torch.load(folder / "model_final.pth", weights_only=True)["trainer"]["hooks"]["BestCheckpointer"]


def test_the_best_score_survives_resumption(config, no_curves, tmp_path, monkeypatch):
    scores = iter([0.2, 0.5, 0.4, 0.5])
    monkeypatch.setattr(CellTrainer, "test", staticmethod(lambda *_: {"competition": {"mean": next(scores)}}))

    def train(length):
        trainer = CellTrainer(config(tmp_path, "SOLVER.MAX_ITER", length))
        trainer.resume_or_load(resume=True)
        trainer.train()

    train(8)
    assert best_of(tmp_path) == {"metric": "competition/mean", "score": 0.5, "iteration": 8}, "of the last evaluation"
    best = (tmp_path / "model_best.pth").stat().st_mtime_ns
    train(16)
    assert (tmp_path / "model_best.pth").stat().st_mtime_ns == best, "neither score is better"
    assert best_of(tmp_path) == {"metric": "competition/mean", "score": 0.5, "iteration": 8}


def test_an_evaluation_that_fails_at_the_end_costs_no_training(config, no_curves, tmp_path, monkeypatch):
    def fail(cfg, model):
        raise ValueError("no more")

    opts = ("SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 100)
    with monkeypatch.context() as patch:
        patch.setattr(CellTrainer, "test", staticmethod(fail))
        trainer = CellTrainer(config(tmp_path, *opts))
        with pytest.raises(ValueError, match="no more"):
            trainer.train()
    again = CellTrainer(config(tmp_path, *opts))
    again.resume_or_load(resume=True)
    assert again.start_iter == 3
    again.train()
    assert best_of(tmp_path)["iteration"] == 3


def test_averaged_weights_are_evaluated_and_saved_and_the_trained_ones_go_on(config, no_curves, tmp_path, monkeypatch):
    """Against an average that is made by hand from the weights of an equal training without."""
    common = ("SOLVER.MAX_ITER", 6, "TEST.EVAL_PERIOD", 3, "SOLVER.CHECKPOINT_PERIOD", 3)

    def weights(model):
        return {name: value.double().clone() for name, value in model.state_dict().items()}

    history, evaluated = [], []
    plain = CellTrainer(config(tmp_path / "plain", *common))
    step = plain.run_step
    plain.run_step = lambda: (
        history or history.append(weights(plain.model)),
        step(),
        history.append(weights(plain.model)),
    )
    plain.resume_or_load(resume=False)
    plain.train()
    parameters = dict(plain.model.named_parameters())
    expected = []
    for count, trained in enumerate(history):
        share = 1 if count == 0 else 1 - min(0.3, (1 + count) / (10 + count))
        before = expected[-1] if expected else trained
        expected.append({name: before[name] + share * (trained[name] - before[name]) for name in parameters})

    def score(cfg, model):
        evaluated.append(weights(model))
        return {"competition": {"mean": len(evaluated) / 10}}

    monkeypatch.setattr(CellTrainer, "test", staticmethod(score))
    cfg = config(tmp_path / "ema", *common, "SOLVER.EMA.ENABLED", True, "SOLVER.EMA.DECAY", 0.3)
    first = CellTrainer(cfg)
    first.resume_or_load(resume=False)
    first.model.load_state_dict(history[0])
    first.checkpointer.model.load_state_dict(history[0])
    first.max_iter = 3
    first.train()
    second = CellTrainer(cfg)
    second.resume_or_load(resume=True)
    assert second.start_iter == 3
    second.train()

    def close(one, other):
        return all(torch.allclose(one[name].double(), other[name], rtol=0, atol=1e-6) for name in parameters)

    assert close(weights(second.model), history[-1]), "the training is the same"
    assert not close(expected[-1], history[-1])
    assert [close(one, expected[count]) for one, count in zip(evaluated, (3, 6), strict=True)] == [True, True]
    for name in ("model_final", "model_best"):
        assert close(torch.load(tmp_path / f"ema/{name}.pth", weights_only=True)["model"], expected[-1]), name


def test_the_loss_falls(config, no_curves, tmp_path):
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
