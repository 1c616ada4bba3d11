"""The compact ResNet is Detectron2's where both exist, and of any width elsewhere."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError


def backbone(repository, *options, name="build_compact_resnet_fpn_backbone"):
    config = repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", name, *options])
    return build_backbone(cfg, ShapeSpec(channels=1))


@pytest.mark.parametrize("depth", [18, 34])
def test_with_64_channels_it_computes_what_detectron2_s_does(repository, depth):
    options = ["MODEL.RESNETS.DEPTH", str(depth)]
    options += ["MODEL.RESNETS.STEM_OUT_CHANNELS", "64", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
    ours = backbone(repository, *options).eval()
    stock = backbone(repository, *options, name="build_resnet_fpn_backbone").eval()
    stock.load_state_dict(ours.state_dict())  # the same names and shapes
    image = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        expected, found = stock(image), ours(image)
    assert expected.keys() == found.keys()
    for level in expected:
        torch.testing.assert_close(found[level], expected[level])


def test_half_the_channels_have_a_quarter_of_the_weights(repository):
    def convolutions(width):
        options = ["MODEL.RESNETS.STEM_OUT_CHANNELS", width, "MODEL.RESNETS.RES2_OUT_CHANNELS", width]
        network = backbone(repository, *options).bottom_up
        return sum(p.numel() for name, p in network.named_parameters() if name.startswith("res") and p.dim() == 4)

    assert convolutions("32") * 4 == convolutions("64")


def test_strides_and_levels(repository):
    network = backbone(repository)
    assert {name: shape.stride for name, shape in network.output_shape().items()} == {
        "p2": 4,
        "p3": 8,
        "p4": 16,
        "p5": 32,
        "p6": 64,
    }
    assert {shape.channels for shape in network.output_shape().values()} == {64}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.RESNETS.DEPTH", "50"], "18 or 34"),
        (["MODEL.RESNETS.RES2_OUT_CHANNELS", "40"], "multiples of 32"),
        (["MODEL.BACKBONE.FREEZE_AT", "2"], "FREEZE_AT must be 0"),
    ],
)
def test_what_it_cannot_be_is_said(repository, options, message):
    with pytest.raises(CellSegError, match=message):
        backbone(repository, *options)
