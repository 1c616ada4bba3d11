"""A timm network under the feature pyramid gives timm's features, and takes its weights."""

import pytest
import timm
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from cellseg_d2.config import load_config
from cellseg_d2.engine.optimizers import lr_factor
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.timm_backbone import TimmBackbone

LITE0 = "tf_efficientnet_lite0"


def fpn(repository, *options):
    config = repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"
    name = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone"]
    return build_backbone(load_config(config, ["MODEL.DEVICE", "cpu", *name, *options]), ShapeSpec(channels=1))


@pytest.fixture(scope="module")
def lite0():
    """A classifier of timm's with random weights for colour images."""
    torch.manual_seed(0)
    return timm.create_model(LITE0)


@pytest.mark.parametrize("name", [LITE0, "resnet10t", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_features_have_the_declared_channels_and_strides(name):
    network = TimmBackbone(name, channels=1).eval()
    with torch.no_grad():
        features = network(torch.randn(1, 1, 64, 96))
    assert list(features) == ["res2", "res3", "res4", "res5"]
    for level, shape in network.output_shape().items():
        assert features[level].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
    assert [shape.stride for shape in network.output_shape().values()] == [4, 8, 16, 32]


def test_pyramid_has_detectron2_s_levels(repository):
    shapes = fpn(repository).output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}


def test_weights_give_timm_s_features(lite0):
    network = TimmBackbone(LITE0, channels=3)
    network.load_weights(lite0.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = lite0.eval().forward_intermediates(image, intermediates_only=True)[1:]
        found = network.eval()(image)
    for feature, (level, value) in zip(expected, found.items(), strict=True):
        torch.testing.assert_close(value, feature, msg=level)


def test_grey_images_give_what_the_same_in_three_channels_gave(lite0):
    grey, colour = TimmBackbone(LITE0, channels=1).eval(), TimmBackbone(LITE0, channels=3).eval()
    for network in (grey, colour):
        network.load_weights(lite0.state_dict())
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for one, three in zip(grey(image).values(), colour(image.expand(-1, 3, -1, -1)).values(), strict=True):
            torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-4)


def test_frozen_norms_are_not_trained():
    network = TimmBackbone(LITE0, norm="FrozenBN").train()
    before = {name: value.clone() for name, value in network.net.named_buffers()}
    network(torch.randn(2, 3, 64, 64))["res5"].sum().backward()
    assert before.keys() == dict(network.net.named_buffers()).keys()
    assert all(torch.equal(before[name], value) for name, value in network.net.named_buffers())
    assert not any("bn" in name for name, _ in network.net.named_parameters())
    assert any("bn" in name for name, _ in TimmBackbone(LITE0, norm="").net.named_parameters())


def test_later_stages_learn_faster(repository):
    config = repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"
    name = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone"]
    model = build_network(load_config(config, ["MODEL.DEVICE", "cpu", *name]))
    factors = {name: lr_factor(model, name, 0.4, 0.5) for name, _ in model.named_parameters()}
    of = {name.removeprefix("backbone.bottom_up.net."): value for name, value in factors.items()}
    assert of["blocks.6.0.conv_pw.weight"] == 0.4
    assert of["blocks.3.0.conv_pw.weight"] == of["blocks.4.0.conv_pw.weight"] == 0.2
    assert of["blocks.2.0.conv_pw.weight"] == 0.1
    assert of["conv_stem.weight"] == of["blocks.1.0.conv_pw.weight"] == 0.05
    assert {value for name, value in factors.items() if "bottom_up" not in name} == {1.0}


def test_stages_of_convnext_and_detectron2_s_resnet(repository):
    network = TimmBackbone("convnext_atto")
    stages = {name: network.stage_of(name) for name, _ in network.named_parameters()}
    assert {stage for name, stage in stages.items() if name.startswith("net.stem")} == {0}
    for stage in range(4):
        assert {found for name, found in stages.items() if name.startswith(f"net.stages_{stage}.")} == {stage}
    model = build_network(load_config(repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"))
    found = {lr_factor(model, name, 1.0, 0.5) for name, _ in model.named_parameters() if ".res4." in name}
    assert found == {0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.TIMM.NAME", "no_such_network"], "no_such_network"),
        (["MODEL.TIMM.NAME", "vit_tiny_patch16_224"], "strides"),
        (["MODEL.TIMM.NORM", "GN"], "MODEL.TIMM.NORM"),
        (["MODEL.BACKBONE.FREEZE_AT", "2"], "BACKBONE_LR_FACTOR"),
    ],
)
def test_what_it_cannot_be_is_said(repository, options, message):
    with pytest.raises(CellSegError, match=message):
        fpn(repository, *options)
