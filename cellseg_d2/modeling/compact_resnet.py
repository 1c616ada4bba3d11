"""ResNet-18 and 34 of any width, for networks that train and predict on a CPU.

Detectron2 builds these depths only with the 64 channels that they have on ImageNet. Most of a small network's time goes
into its backbone, where half the channels take a quarter of the operations.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem

from cellseg_d2.errors import CellSegError

# Basic blocks of each stage (He et al., Deep Residual Learning for Image Recognition, 2016).
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@BACKBONE_REGISTRY.register()
def build_compact_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A feature pyramid on a ResNet whose first stage has ``MODEL.RESNETS.RES2_OUT_CHANNELS`` channels.

    Reads ``DEPTH`` (18 or 34), ``RES2_OUT_CHANNELS``, ``STEM_OUT_CHANNELS`` and ``NORM`` of ``MODEL.RESNETS``, and
    ``MODEL.FPN``. Each stage has twice the channels of the one before it; strides are 4 to 32, and 64 of ``p6``.

    Raises:
        CellSegError: another depth, a part of the network that is to be frozen, or channels that the norm cannot group.
    """
    resnets = cfg.MODEL.RESNETS
    if resnets.DEPTH not in BLOCKS:
        raise CellSegError(f"MODEL.RESNETS.DEPTH is {resnets.DEPTH}, but the compact ResNet can have 18 or 34")
    if cfg.MODEL.BACKBONE.FREEZE_AT:
        raise CellSegError("MODEL.BACKBONE.FREEZE_AT must be 0: there are no weights of a compact ResNet to freeze")
    widths = [resnets.STEM_OUT_CHANNELS, *(resnets.RES2_OUT_CHANNELS * 2**i for i in range(4))]
    if resnets.NORM == "GN" and any(width % 32 for width in widths):
        raise CellSegError(
            f"MODEL.RESNETS.STEM_OUT_CHANNELS and RES2_OUT_CHANNELS are {widths[0]} and {widths[1]}; GroupNorm needs "
            "multiples of 32"
        )
    stages = [
        ResNet.make_stage(
            BasicBlock,
            blocks,
            stride_per_block=[1 if index == 0 else 2] + [1] * (blocks - 1),
            in_channels=widths[index],
            out_channels=widths[index + 1],
            norm=resnets.NORM,
        )
        for index, blocks in enumerate(BLOCKS[resnets.DEPTH])
    ]
    bottom_up = ResNet(
        BasicStem(input_shape.channels, widths[0], resnets.NORM), stages, out_features=list(resnets.OUT_FEATURES)
    )
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
