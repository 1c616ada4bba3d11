"""Choose the number format in which a network predicts."""

from __future__ import annotations

import torch
from detectron2.modeling.poolers import ROIPooler
from torch import nn

from cellseg_d2.errors import CellSegError

PRECISIONS = ("auto", "float32", "bfloat16")
# Features of processors that multiply bfloat16 faster than float32.
FAST_BFLOAT16 = ("avx512_bf16", "amx_bf16")


def prediction_dtype(precision: str, device: torch.device | str) -> torch.dtype | None:
    """The dtype for PyTorch's autocast in prediction; None for float32 throughout.

    Args:
        precision: ``TEST.PRECISION``. ``"auto"`` is bfloat16 on processors that have instructions for it, where it was
            measured to be faster and to give the same scores; float32 elsewhere.
        device: device of the network.

    Raises:
        CellSegError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise CellSegError(f"TEST.PRECISION is {precision!r}; it can be {', '.join(PRECISIONS)}")
    if precision == "auto":
        return torch.bfloat16 if torch.device(device).type == "cpu" and has_fast_bfloat16() else None
    return torch.bfloat16 if precision == "bfloat16" else None


def has_fast_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16, as far as PyTorch tells."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # of PyTorch from 2.12 on
    return any(capabilities.get(name, False) for name in FAST_BFLOAT16)


def pool_in_float32(model: nn.Module) -> None:
    """Give every ``ROIPooler`` in ``model`` features in float32, also in mixed precision.

    Detectron2 rounds the boxes to the number format of the features before it pools. With the 8 bits of bfloat16 that
    leaves multiples of 4 pixels from 512 on: what is pooled, and the mask that is made of it, lies beside the cell.
    """
    for module in model.modules():
        if isinstance(module, ROIPooler):
            module.register_forward_pre_hook(_with_float32_features)


def _with_float32_features(pooler: nn.Module, args: tuple) -> tuple:
    features, *boxes = args
    return [level.float() for level in features], *boxes
