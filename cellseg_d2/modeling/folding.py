"""Fold frozen norms into the convolutions before them, for prediction."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from cellseg_d2.modeling.timm_backbone import TimmBackbone


def fold_frozen_norms(model: nn.Module) -> int:
    """Fold each frozen norm of a timm backbone into the convolution before it; returns how many were folded.

    A frozen norm multiplies and adds constants, which the convolution can do at no cost; on a CPU it takes as long as
    the convolution itself. The model can then no longer be trained, nor its parameters be saved.

    The order in which modules are registered says which norm follows which convolution, which holds for timm's
    networks but is promised by none. The folded network is therefore compared with the one before, and left as it was
    if it computes anything else.

    Args:
        model: changed in place, in evaluation mode and on its device.
    """
    backbone = getattr(getattr(model, "backbone", None), "bottom_up", None)
    if not isinstance(backbone, TimmBackbone):
        return 0
    folded = copy.deepcopy(backbone.net)
    count = sum(_fold(parent) for parent in list(folded.modules()))
    weight = next(backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, backbone.channels, 64, 64, generator=generator).to(weight)
    with torch.no_grad():
        pairs = list(zip(backbone.net(image), folded(image), strict=True))
    if not all(torch.allclose(new, old, rtol=1e-3, atol=1e-3 * float(old.abs().max())) for old, new in pairs):
        return 0
    backbone.net = folded
    return count


def _fold(parent: nn.Module) -> int:
    from timm.layers import FrozenBatchNormAct2d

    count, before = 0, None
    for name, module in list(parent.named_children()):
        if isinstance(module, FrozenBatchNorm2d | FrozenBatchNormAct2d) and before is not None:
            convolution = getattr(parent, before)
            constants = (module.running_mean, module.running_var, module.eps, module.weight, module.bias)
            weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *constants)
            convolution.weight, convolution.bias = weight, bias
            setattr(parent, name, getattr(module, "act", nn.Identity()))
            count += 1
        before = name if isinstance(module, nn.Conv2d) else None
    return count
