"""Gradient accumulation against one large batch."""

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from cellseg_d2.config import add_cellseg_config
from cellseg_d2.engine.optimizers import accumulate_gradients, build_optimizer
from cellseg_d2.errors import CellSegError


def train(optimizer_name, steps, batches, *, clip=False, interrupt=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.GRADIENT_ACCUMULATION = optimizer_name, 0.05, steps
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip, "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.01
    optimizer = build_optimizer(cfg, model)
    for i, batch in enumerate(batches):
        if i == interrupt:
            state = optimizer.state_dict()
            optimizer = build_optimizer(cfg, model)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        (model(batch) ** 2).mean().backward()
        optimizer.step()
    return torch.cat([p.detach().ravel() for p in model.parameters()])


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip", [False, True])
def test_accumulation_equals_a_larger_batch(name, clip):
    data = torch.randn(12, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    small = train(name, 3, list(data), clip=clip)
    large = train(name, 1, list(data.reshape(4, 15, 4)), clip=clip)
    untrained = train(name, 1, [], clip=clip)
    torch.testing.assert_close(small, large)
    assert (small - untrained).abs().max() > 1e-4


def test_resuming_in_the_middle_of_an_accumulation():
    data = list(torch.randn(12, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(train("AdamW", 3, data, interrupt=7), train("AdamW", 3, data), rtol=0, atol=0)


def test_bad_settings_are_refused():
    model = nn.Linear(1, 1)
    with pytest.raises(CellSegError, match="at least 1"):
        accumulate_gradients(torch.optim.SGD(model.parameters(), lr=1), 0)
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.SOLVER.OPTIMIZER = "LARS"
    with pytest.raises(CellSegError, match="LARS"):
        build_optimizer(cfg, model)
