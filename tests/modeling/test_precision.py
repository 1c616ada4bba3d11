"""Predictions in bfloat16 where processors are made for it."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.precision import has_fast_bfloat16, prediction_dtype


@pytest.mark.parametrize("capable", [True, False])
def test_auto_follows_the_processor(capable, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable}, raising=False)
    assert has_fast_bfloat16() is capable
    assert prediction_dtype("auto", "cpu") is (torch.bfloat16 if capable else None)
    assert prediction_dtype("auto", "cuda:0") is None
    assert prediction_dtype("bfloat16", "cpu") is torch.bfloat16
    assert prediction_dtype("float32", "cpu") is None


def test_a_pytorch_that_does_not_tell_is_taken_at_its_safest(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert prediction_dtype("auto", "cpu") is None


def test_others_are_refused():
    with pytest.raises(CellSegError, match="float16"):
        prediction_dtype("float16", "cpu")


@pytest.mark.parametrize("config", ["instant_test", "dense_mask_rcnn_effnet_lite0_FPN"])
def test_boxes_are_not_rounded_where_features_are(config, repository):
    """Features that tell their own place, exact in bfloat16: pooled from a box at 700 pixels, they tell its middle."""
    network = build_network(load_config(repository / f"configs/quickstart/{config}.yaml", ["MODEL.DEVICE", "cpu"]))
    poolers = [module for module in network.modules() if isinstance(module, ROIPooler)]
    assert len(poolers) == 2
    for pooler in poolers:
        steps = [round(1 / level.spatial_scale) for level in pooler.level_poolers]
        assert min(steps) == 4
        levels = [torch.arange(1024 // step).expand(1, 1, 64, -1).to(torch.bfloat16) for step in steps]
        boxes = Boxes(torch.tensor([[701.0, 20, 729, 50], [702, 20, 730, 50], [703, 20, 731, 50]]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pooled = pooler(levels, [boxes])
        middles = 4 * (pooled.float().mean(dim=(1, 2, 3)) + 0.5)
        assert middles.tolist() == pytest.approx([715, 716, 717], abs=0.01)
