"""Gradient accumulation against one large batch."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import SimpleTrainer
from torch import nn

from cellseg_d2.config import add_cellseg_config
from cellseg_d2.engine.accumulation import AccumulatingTrainer
from cellseg_d2.engine.optimizers import build_optimizer

DATA = torch.randn(12, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Squares(nn.Sequential):
    """Of two losses; notes how many samples it is given at a time."""

    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.seen = []

    def forward(self, batch):
        self.seen.append(len(batch))
        out = super().forward(batch)
        return {"loss_square": (out**2).mean(), "loss_rise": out.mean()}


def train(optimizer, batches, accumulated=None, clip=False):
    """The weights after all batches, and the losses of each iteration."""
    torch.manual_seed(0)
    model = Squares().double()
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR = optimizer, 0.05
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip, "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    parts = model, list(batches), build_optimizer(cfg, model)
    trainer = SimpleTrainer(*parts) if accumulated is None else AccumulatingTrainer(*parts, accumulated)
    trainer.train(0, len(batches) // (accumulated or 1))
    losses = {name: history.values() for name, history in trainer.storage.histories().items() if "loss" in name}
    return torch.cat([p.detach().ravel() for p in model.parameters()]), losses, model.seen


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip", [False, True])
def test_accumulation_equals_a_larger_batch(optimizer, clip):
    small, losses, seen = train(optimizer, DATA, 3, clip=clip)
    large, expected, _ = train(optimizer, DATA.reshape(4, 15, 4), clip=clip)
    untrained, _, _ = train(optimizer, [], clip=clip)
    torch.testing.assert_close(small, large)
    assert (small - untrained).abs().max() > 1e-4
    assert seen == [5] * 12, "no more than one batch is in memory"
    assert losses.keys() == expected.keys() == {"total_loss", "loss_square", "loss_rise"}
    for name, values in expected.items():
        assert [i for _, i in losses[name]] == [0, 1, 2, 3]
        assert [v for v, _ in losses[name]] == pytest.approx([v for v, _ in values])


def test_one_batch_an_iteration_is_detectron2_s_own():
    assert torch.equal(train("SGD", DATA, 1)[0], train("SGD", DATA)[0])
