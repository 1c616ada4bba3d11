"""Parts of networks that Detectron2 lacks, in its registries; importing this package registers them."""

from cellseg_d2.modeling import (  # noqa: F401
    blockwise_rpn,
    compact_resnet,
    dense_rcnn,
    reflection_padding,
    timm_backbone,
    unet_head,
)
