"""Build the network of a configuration, or say in one sentence why that is impossible."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.modeling.precision import pool_in_float32


def build_network(cfg: CfgNode) -> nn.Module:
    """Like Detectron2's ``build_model``, with features that are pooled in float32.

    Raises:
        CellSegError: values of the right types make no network together, or name parts that do not exist.
    """
    try:
        model = build_model(cfg)
    except CellSegError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CellSegError(f"the keys below MODEL make no network: {one_line(error)}") from error
    except RuntimeError as error:
        if "negative dimension" not in str(error):  # what is left is about devices and memory
            raise
        raise CellSegError(f"the keys below MODEL make no network: {one_line(error)}") from error
    pool_in_float32(model)
    return model.to(memory_format=torch.channels_last) if cfg.MODEL.CHANNELS_LAST else model
