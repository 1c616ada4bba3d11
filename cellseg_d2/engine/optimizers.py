"""Optimizers from the configuration, and gradient accumulation for any of them."""

from __future__ import annotations

import re

import torch
from detectron2.config import CfgNode
from detectron2.solver import get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping

from cellseg_d2.errors import CellSegError


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """``SOLVER.OPTIMIZER`` with clipping and accumulation as the configuration says.

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
    optimizer = maybe_add_gradient_clipping(cfg, optimizer)
    return accumulate_gradients(optimizer, solver.GRADIENT_ACCUMULATION)


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


def accumulate_gradients(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.Optimizer:
    """Make ``optimizer`` step once every ``steps`` calls of ``step()``, on the mean of their gradients.

    The sums are kept beside the gradients rather than in them: Detectron2's trainers clear the gradients in every
    iteration, and mixed precision rescales them. An iteration that the gradient scaler skips is not counted.
    The sums are part of the optimizer's state, so that training resumes in the middle of an accumulation.

    Args:
        optimizer: changed in place.
        steps: 1 leaves it as it is.
    """
    if steps < 1:
        raise CellSegError(f"SOLVER.GRADIENT_ACCUMULATION is {steps}; it must be at least 1")
    if steps == 1:
        return optimizer
    base = type(optimizer)

    class Accumulating(base):
        def step(self, closure=None):
            for index, parameter in enumerate(self._parameters()):
                if parameter.grad is not None:
                    share = parameter.grad / steps
                    self._sums[index] = self._sums[index] + share if index in self._sums else share
            self._count += 1
            if self._count < steps:
                return None
            for index, parameter in enumerate(self._parameters()):
                parameter.grad = self._sums.get(index)
            self._count, self._sums = 0, {}
            # Detectron2's clipping finds its parent class through `type(self)`, which must be its own for that moment.
            self.__class__ = base
            try:
                return base.step(self, closure)
            finally:
                self.__class__ = Accumulating

        def _parameters(self):
            return (parameter for group in self.param_groups for parameter in group["params"])

        def state_dict(self):
            return {**super().state_dict(), "accumulation": {"count": self._count, "sums": dict(self._sums)}}

        def load_state_dict(self, state_dict):
            state_dict = dict(state_dict)
            accumulation = state_dict.pop("accumulation", {"count": 0, "sums": {}})
            super().load_state_dict(state_dict)
            parameters = list(self._parameters())
            self._count = accumulation["count"]
            self._sums = {i: value.to(parameters[i].device) for i, value in accumulation["sums"].items()}

    Accumulating.__name__ = Accumulating.__qualname__ = f"Accumulating{base.__name__}"
    optimizer.__class__ = Accumulating  # as Detectron2's own gradient clipping does
    optimizer._count, optimizer._sums = 0, {}
    return optimizer
