"""Configurations that make no network are a sentence, for training and for prediction."""

import pytest

from cellseg_d2.config import load_config
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network


@pytest.mark.parametrize(
    "opts",
    [
        ("MODEL.META_ARCHITECTURE", "Nope"),
        ("MODEL.BACKBONE.NAME", "Nope"),
        ("MODEL.RESNETS.DEPTH", "19"),
        ("MODEL.FPN.OUT_CHANNELS", "-3"),
        ("MODEL.FPN.IN_FEATURES", "['res9']"),
        ("MODEL.ROI_HEADS.NAME", ""),
        ("MODEL.ROI_HEADS.NUM_CLASSES", "-5"),
        ("MODEL.ROI_BOX_HEAD.FC_DIM", "-1"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16]]"),
        ("MODEL.PIXEL_MEAN", "[]"),
    ],
)
def test_what_makes_no_network_is_a_sentence(repository, opts):
    config = repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *opts])
    for build in (build_network, CellTrainer.build_model):
        with pytest.raises(CellSegError, match=r"^(the keys below MODEL make no network: .|MODEL.RESNETS.DEPTH is 19)"):
            build(cfg)
