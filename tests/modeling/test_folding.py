"""Folded norms compute what they computed by themselves."""

import torch
from torch import nn

from cellseg_d2.modeling import folding
from cellseg_d2.modeling.folding import fold_frozen_norms
from cellseg_d2.modeling.timm_backbone import TimmBackbone


class Detector(nn.Module):
    """As far as the folding looks at it: a feature pyramid's backbone, whose norms have seen images."""

    def __init__(self, name, norm="FrozenBN"):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Module()
        self.backbone.bottom_up = TimmBackbone(name, channels=1, norm=norm)
        for key, value in self.backbone.bottom_up.net.named_buffers():
            if value.dim() == 1:
                value.copy_(torch.rand_like(value) + (0.5 if "var" in key or key.endswith("weight") else -0.5))
        self.eval()


def features(model):
    with torch.no_grad():
        return model.backbone.bottom_up(torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(1)))


def test_features_stay_and_norms_go():
    for name in ("tf_efficientnet_lite0", "resnet18"):
        model = Detector(name)
        norms = sum(key.endswith("running_mean") for key in model.state_dict())
        before = features(model)
        assert fold_frozen_norms(model) == norms > 10
        assert not any("running_mean" in key for key in model.state_dict())
        for level, value in features(model).items():
            torch.testing.assert_close(value, before[level], rtol=1e-3, atol=1e-3 * float(before[level].abs().max()))


def test_what_has_no_frozen_norms_stays_as_it_is():
    for model in (Detector("tf_efficientnet_lite0", norm=""), Detector("convnext_atto"), nn.Linear(2, 2)):
        keys = list(model.state_dict())
        assert fold_frozen_norms(model) == 0
        assert list(model.state_dict()) == keys


def test_a_fold_that_would_change_the_features_is_not_made(monkeypatch):
    model = Detector("tf_efficientnet_lite0")
    before = features(model)
    fuse = folding.fuse_conv_bn_weights
    monkeypatch.setattr(folding, "fuse_conv_bn_weights", lambda *a: tuple(nn.Parameter(v * 1.5) for v in fuse(*a)))
    assert fold_frozen_norms(model) == 0
    for level, value in features(model).items():
        torch.testing.assert_close(value, before[level])
