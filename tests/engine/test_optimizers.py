"""Optimizers as the configuration names them."""

import pytest
from detectron2.config import get_cfg
from torch import nn

from cellseg_d2.config import add_cellseg_config
from cellseg_d2.engine.optimizers import build_optimizer
from cellseg_d2.errors import CellSegError


def test_an_unknown_optimizer_is_refused():
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.SOLVER.OPTIMIZER = "LARS"
    with pytest.raises(CellSegError, match="LARS"):
        build_optimizer(cfg, nn.Linear(1, 1))
