"""SEED fixes a training on the CPU to the last bit, whatever comes between."""

import json

import pytest
import torch

from cellseg_d2.config import load_config
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.engine.trainer import CellTrainer

LENGTH = 5


@pytest.fixture
def trainer(repository, dataset_root, tmp_path, monkeypatch, no_curves):
    """Makes a trainer, with new weights that depend on the seed, as train-net's are."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(dataset_root))

    def make(name, *opts, seed=3, resume=False):
        fixed = ("OUTPUT_DIR", tmp_path / name, "SEED", seed, "SOLVER.MAX_ITER", LENGTH, "SOLVER.IMS_PER_BATCH", 2)
        fixed += ("TEST.EVAL_PERIOD", 0, "DATASETS.TEST", "()", "INPUT.COPY_PASTE.PROBABILITY", 0.5)
        path = repository / "configs/quickstart/instant_test.yaml"
        cfg = prepare_training(load_config(path, [*map(str, (*fixed, *opts))]))
        torch.manual_seed(seed)
        trainer = CellTrainer(cfg)
        trainer.resume_or_load(resume)
        torch.manual_seed(99)  # what was drawn before must not matter
        return trainer

    return make


def trained(trainer):
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_seed_fixes_the_weights_and_a_resumed_run_has_them_too(trainer):
    once = trained(trainer("once"))
    assert same(once, trained(trainer("again", "DATALOADER.NUM_WORKERS", 2)))
    assert not same(once, trained(trainer("other", seed=4)))

    first = trainer("resumed")
    first.max_iter = 2  # as if interrupted: the schedule is still that of the whole length
    first.train()
    second = trainer("resumed", resume=True)
    assert second.start_iter == 2
    assert same(once, trained(second))


def test_averaged_weights_and_several_batches_an_iteration_resume_to_the_last_bit(trainer, tmp_path):
    opts = ("SOLVER.EMA.ENABLED", True, "SOLVER.GRADIENT_ACCUMULATION", 2)
    trainer("once", *opts).train()
    first = trainer("resumed", *opts)
    first.max_iter = 2
    first.train()
    trainer("resumed", *opts, resume=True).train()
    once, resumed = (torch.load(tmp_path / name / "model_final.pth", weights_only=True) for name in ("once", "resumed"))
    own, other = (state["trainer"]["hooks"]["WeightAverage"]["trained"] for state in (once, resumed))
    assert same(once["model"], resumed["model"])
    assert same(own, other)
    assert not same(once["model"], own)


def test_a_kill_just_before_the_final_model_is_made_up_for(trainer, tmp_path):
    first = trainer("run", "SOLVER.CHECKPOINT_PERIOD", LENGTH)
    first.train()
    final = tmp_path / "run" / "model_final.pth"
    expected = torch.load(final, weights_only=True)
    final.unlink()
    first.checkpointer.tag_last_checkpoint(f"model_{LENGTH - 1:07d}.pth")
    trainer("run", "SOLVER.CHECKPOINT_PERIOD", LENGTH, resume=True).train()
    made = torch.load(final, weights_only=True)
    assert made["iteration"] == made["trainer"]["iteration"] == expected["iteration"]
    assert same(expected["model"], made["model"])
    assert first.checkpointer.get_checkpoint_file() == str(final)


def test_another_seed_is_told_when_training_goes_on(trainer, caplog):
    first = trainer("run")
    first.max_iter = 1
    first.train()
    trainer("run", resume=True)
    assert "SEED" not in caplog.text
    trainer("run", seed=8, resume=True)
    assert "began with SEED 3 and continues with 8" in caplog.text


def test_a_training_that_starts_anew_leaves_nothing_to_resume_from(trainer):
    """Killed before its first checkpoint, it would else go on from that of the training before it."""
    first = trainer("run")
    first.max_iter = 1
    first.train()
    assert first.checkpointer.has_checkpoint()
    assert not trainer("run").checkpointer.has_checkpoint()


def test_an_evaluation_that_was_cut_off_is_made_up_for(trainer, tmp_path, monkeypatch):
    test = ("DATASETS.TEST", "('discs_val',)", "TEST.EVAL_PERIOD", 2, "SOLVER.CHECKPOINT_PERIOD", 2)
    folder, evaluated = tmp_path / "run", []

    @staticmethod
    def score(cfg, model):
        evaluated.append(len(evaluated))
        return {"competition": {"mean": 0.5 - len(evaluated) / 10}}

    @staticmethod
    def killed(cfg, model):
        raise KeyboardInterrupt

    def interrupted(start):
        run = trainer("run", *test, resume=True)
        assert run.start_iter == start
        with monkeypatch.context() as patch:
            patch.setattr(CellTrainer, "test", killed)
            with pytest.raises(KeyboardInterrupt):
                run.train()

    def read(name):
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    monkeypatch.setattr(CellTrainer, "test", score)
    interrupted(start=0)
    assert not (folder / "last_checkpoint").exists()
    first = trainer("run", *test, resume=True)
    first.max_iter = 2
    first.train()
    interrupted(start=2)
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"

    evaluated.clear()
    last = trainer("run", *test, resume=True)
    last.train()
    assert len(evaluated) == 2  # at 4, and at the end
    state = torch.load(folder / "model_final.pth", weights_only=True)
    assert state["trainer"]["hooks"]["BestCheckpointer"]["score"] == pytest.approx(0.4)
    lines = [line for line in read("metrics.json") if "competition/mean" in line]
    assert {line["iteration"]: line["competition/mean"] for line in lines} == pytest.approx({3: 0.4, LENGTH: 0.3})

    third = trainer("run", *test, resume=True)  # nothing is left but the last evaluation
    third.train()
    assert len(evaluated) == 3
    assert read("metrics.json")[-1]["iteration"] == LENGTH
