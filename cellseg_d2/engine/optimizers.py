"""Optimizers from the configuration."""

from __future__ import annotations

import re

import torch
from detectron2.config import CfgNode
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping

from cellseg_d2.errors import CellSegError


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """``SOLVER.OPTIMIZER`` with clipping as the configuration says.

    Norm layers and biases get their own weight decay as in Detectron2's default optimizer.
    """
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lambda name: lr_factor(model, name, solver.BACKBONE_LR_FACTOR, solver.STAGE_LR_DECAY),
    )
    if solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(
            params,
            lr=solver.BASE_LR,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
        )
    elif solver.OPTIMIZER == "AdamW":
        optimizer = torch.optim.AdamW(params, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    else:
        raise CellSegError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; it can be SGD or AdamW")
    return maybe_add_gradient_clipping(cfg, optimizer)


def lr_factor(model: torch.nn.Module, parameter: str, backbone: float, decay: float) -> float:
    """The learning rate of a parameter relative to ``SOLVER.BASE_LR``.

    Args:
        model: a Detectron2 model, maybe wrapped; its backbone is a feature pyramid or a single network.
        parameter: its name in ``model``.
        backbone: the factor of the backbone's last stage. The feature pyramid on it has the heads' learning rate.
        decay: the factor of each stage relative to the next.

    Returns:
        1 for all that is not the backbone.
    """
    prefix, found, name = parameter.partition("backbone.bottom_up.")
    if not found:
        return 1.0
    bottom_up = model.get_submodule(f"{prefix}backbone.bottom_up")
    stages = getattr(bottom_up, "stage_of", _resnet_stage)
    return backbone * decay ** (LAST_STAGE - stages(name))


LAST_STAGE = 3  # counted from 0: strides 4, 8, 16, 32


def _resnet_stage(name: str) -> int:
    """As ``TimmBackbone.stage_of``, for Detectron2's names ``stem`` and ``res2`` … ``res5``."""
    match = re.match(r"res(\d)\.", name)
    return int(match[1]) - 2 if match else 0
