"""Any convolutional or hierarchical network of timm under Detectron2's feature pyramid.

timm (Wightman, PyTorch Image Models) has hundreds of backbones with weights from ImageNet: ResNets, EfficientNets,
ConvNeXts, Swin transformers. ``MODEL.TIMM.NAME`` chooses one; ``MODEL.TIMM.PRETRAINED`` says where its weights are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.io.network import limited_silence

# The names that configurations give to feature maps of these strides, as in Detectron2's ResNets.
FEATURES = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
NORMS = ("FrozenBN", "")
TIMM_BACKBONE = "build_timm_fpn_backbone"  # below


class TimmBackbone(Backbone):
    """The feature maps of strides 4, 8, 16 and 32 of a timm network, as ``res2`` … ``res5``.

    Args:
        name: name of the network in timm.
        channels: number of channels of the images.
        norm: ``"FrozenBN"`` keeps the statistics and factors of batch norms as they were trained, which small batches
            cannot improve; ``""`` leaves the network's norms as they are.

    Raises:
        CellSegError: timm is not installed, does not know the name, or the network has no maps of these strides.
    """

    def __init__(self, name: str, channels: int = 3, norm: str = "FrozenBN"):
        super().__init__()
        if norm not in NORMS:
            raise CellSegError(f"MODEL.TIMM.NORM is {norm!r}; it can be {' or '.join(map(repr, NORMS))}")
        self.name, self.channels = name, channels
        net = self._create()
        info = list(zip(net.feature_info.reduction(), net.feature_info.channels(), strict=True))
        self._out_features = [FEATURES[stride] for stride, _ in info if stride in FEATURES]
        self._wanted = [stride in FEATURES for stride, _ in info]
        self._out_feature_strides = {FEATURES[stride]: stride for stride, _ in info if stride in FEATURES}
        self._out_feature_channels = {FEATURES[stride]: width for stride, width in info if stride in FEATURES}
        if len(self._out_features) != len(FEATURES):
            strides = ", ".join(str(stride) for stride, _ in info)
            raise CellSegError(
                f"MODEL.TIMM.NAME {name!r} has feature maps of strides {strides}; 4, 8, 16, 32 are needed"
            )
        self._stages = _stages(net)
        self._channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"
        if norm == "FrozenBN":
            from timm.layers import freeze_batch_norm_2d

            net = freeze_batch_norm_2d(net)
        self.net = net

    def _create(self, **weights) -> torch.nn.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # timm's own, about what it uses of PyTorch
                import timm
        except ImportError:
            raise CellSegError(
                f"MODEL.TIMM.NAME {self.name!r} needs timm, which is not installed: pip install timm"
            ) from None
        transformer = {"strict_img_size": False} if self.name.startswith(("swin", "swinv2")) else {}
        try:
            return timm.create_model(self.name, features_only=True, in_chans=self.channels, **transformer, **weights)
        except MemoryError:
            raise
        except Exception as error:  # timm raises RuntimeError, TypeError and others for names, files and the network
            raise CellSegError(f"timm cannot make MODEL.TIMM.NAME {self.name!r}: {one_line(error)}") from error

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps ``(N, C, H / stride, W / stride)`` of images ``(N, channels, H, W)``, by name."""
        maps = [found for found, wanted in zip(self.net(image), self._wanted, strict=True) if wanted]
        if self._channels_last:
            maps = [found.permute(0, 3, 1, 2).contiguous() for found in maps]
        return dict(zip(self._out_features, maps, strict=True))

    @property
    def size_divisibility(self) -> int:
        """Sides of images must be multiples of this."""
        return max(FEATURES)

    def stage_of(self, parameter: str) -> int:
        """0 … 3 for the stage that a parameter, by its name here, belongs to; stems belong to the first."""
        return next((stage for prefix, stage in self._stages if parameter.startswith(f"net.{prefix}")), 0)

    def load_weights(self, weights: Mapping[str, torch.Tensor] | None = None) -> None:
        """Take the network's own weights; a first layer for colours is summed up for grey images.

        Args:
            weights: by timm's names; what lies beyond the last feature map is not used. None has timm load them from
                the hub.

        Raises:
            CellSegError: they are of another network, or the hub does not answer.
        """
        if weights is None:
            with limited_silence():
                net = self._create(pretrained=True)
        else:
            drawn = self._create().state_dict()
            net = self._create(pretrained=True, pretrained_cfg_overlay={"state_dict": dict(weights)})
            same = [
                name for name, value in net.state_dict().items() if value.dim() > 1 and torch.equal(drawn[name], value)
            ]
            if same:  # timm leaves what it has nothing for as it was drawn
                raise CellSegError(f"there are no weights for {same[0]} of {self.name!r}")
        self.net.load_state_dict(net.state_dict(), strict=False)  # frozen norms count no batches


def _stages(net: torch.nn.Module) -> list[tuple[str, int]]:
    """Prefixes of parameters, each with its stage, the most specific first."""
    modules = [name for name, _ in net.named_children()]
    stage, result = 0, []
    ends = {info["module"].replace(".", "_"): FEATURES.get(info["reduction"]) for info in net.feature_info.info}
    numbers = {name: index for index, name in enumerate(FEATURES.values())}
    for module in modules:
        children = [f"{module}.{child}" for child, _ in getattr(net, module).named_children()]
        inner = [child for child in children if child.replace(".", "_") in ends]
        for name in children if inner else [module]:
            result.append((f"{name}.", stage))
            if (feature := ends.get(name.replace(".", "_"))) is not None:
                stage = min(numbers[feature] + 1, len(FEATURES) - 1)
    return result


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid on the network ``MODEL.TIMM.NAME``.

    Reads ``MODEL.TIMM`` and ``MODEL.FPN``. Strides are 4 to 32, and 64 of ``p6``.

    Raises:
        CellSegError: see :class:`TimmBackbone`; or a part of the network is to be frozen.
    """
    if cfg.MODEL.BACKBONE.FREEZE_AT:
        raise CellSegError("MODEL.BACKBONE.FREEZE_AT must be 0 for a network of timm; use SOLVER.BACKBONE_LR_FACTOR")
    return FPN(
        bottom_up=TimmBackbone(cfg.MODEL.TIMM.NAME, input_shape.channels, cfg.MODEL.TIMM.NORM),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
