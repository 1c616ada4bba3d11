"""A region proposal network that matches crowded cells to its anchors in little memory and time."""

from __future__ import annotations

import torch
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances

from cellseg_d2.masks.ignore import LARGEST_SHARE, box_shares

# Values of one block of overlaps: what stays in a processor's cache, or keeps a GPU busy.
_BLOCK = {"cpu": 1 << 18, "cuda": 1 << 24}


@PROPOSAL_GENERATOR_REGISTRY.register()
class BlockwiseRPN(RPN):
    """Detectron2's ``RPN``, which learns from the same anchors and predicts the same.

    Detectron2 computes the overlap of every cell with every anchor at once, in matrices of two values each: for 800
    cells and 350,000 anchors several of 2 GiB. Here a block of cells at a time is compared, and only the best of each
    anchor is kept. On one core this is 5 to 7 times as fast (200 cells, 35,000 anchors: 0.04 s instead of 0.29 s).

    Where the truth's masks tell of a region in which nobody annotated (``gt_masks.ignore``, see
    :class:`cellseg_d2.data.label_masks.LabelMasks`), anchors and proposals that are mostly in it and outside of all
    cells' boxes are never taken for background: neither here, nor by whatever heads get the proposals.
    """

    # What predicts the same in plain Detectron2.
    plain_name = "RPN"

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """As in ``RPN``: by image, labels (1 cell, 0 background, -1 left out) and boxes of cells ``(R, 4)``."""
        everywhere = Boxes.cat(anchors)
        labels, boxes = [], []
        for instances in gt_instances:
            truth = instances.gt_boxes.tensor
            nearest, own = match_blockwise(truth, everywhere.tensor, self.anchor_matcher)
            if self.anchor_boundary_thresh >= 0:
                own[~everywhere.inside_box(instances.image_size, self.anchor_boundary_thresh)] = -1
            own[(own == 0) & unknown_boxes(instances, everywhere)] = -1
            labels.append(self._subsample_labels(own))
            boxes.append(truth[nearest] if len(truth) else torch.zeros_like(everywhere.tensor))
        return labels, boxes

    def forward(
        self, images: ImageList, features: dict[str, torch.Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """As of ``RPN``, without the proposals of which nothing is known."""
        proposals, losses = super().forward(images, features, gt_instances)
        if self.training and gt_instances is not None:
            proposals = [
                own[~unknown_boxes(truth, own.proposal_boxes)]
                for own, truth in zip(proposals, gt_instances, strict=True)
            ]
        return proposals, losses


def unknown_boxes(truth: Instances, boxes: Boxes) -> torch.Tensor:
    """Whether more than half of each box is where nobody annotated and no cell's box is, bool ``(N,)``.

    So none of them overlaps a cell's box with an IoU of 0.5 or more.

    Args:
        truth: truth of the image.
        boxes: ``N`` of them, in its pixels.
    """
    ignore = getattr(truth.gt_masks, "ignore", None) if truth.has("gt_masks") else None
    if ignore is None:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    region = ignore.cpu().numpy().copy()
    for x0, y0, x1, y1 in truth.gt_boxes.tensor.cpu().round().int().clamp(min=0).tolist():
        region[y0:y1, x0:x1] = False
    shares = box_shares(region, boxes.tensor.detach().cpu().numpy())
    return torch.from_numpy(shares > LARGEST_SHARE).to(boxes.device)


def match_blockwise(
    truth: torch.Tensor, anchors: torch.Tensor, matcher: Matcher, block: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What ``matcher(pairwise_iou(truth, anchors))`` gives, without the whole matrix.

    Args:
        truth: boxes ``(N, 4)`` as x0, y0, x1, y1.
        anchors: ``(R, 4)``.
        matcher: its thresholds, labels and rule for boxes without a good anchor.
        block: how many overlaps are computed at once; by default what suits the device.

    Returns:
        for each anchor the index of the box that it overlaps most, the first of several, and its label, int8.
    """
    best = anchors.new_zeros(len(anchors))
    nearest = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
    needed = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    x0, y0, x1, y1 = (side.contiguous() for side in anchors.unbind(1))
    areas = (x1 - x0) * (y1 - y0)
    rows = max(1, (block or _BLOCK.get(anchors.device.type, _BLOCK["cpu"])) // max(1, len(anchors)))
    for start in range(0, len(truth) if len(anchors) else 0, rows):
        own_x0, own_y0, own_x1, own_y1 = truth[start : start + rows, :, None].unbind(1)
        width = torch.minimum(own_x1, x1).sub_(torch.maximum(own_x0, x0)).clamp_(min=0)
        height = torch.minimum(own_y1, y1).sub_(torch.maximum(own_y0, y0)).clamp_(min=0)
        shared = width.mul_(height)
        union = ((own_x1 - own_x0) * (own_y1 - own_y0) + areas).sub_(shared)
        overlaps = shared.div_(union).nan_to_num_(nan=0.0)  # two boxes without area
        highest, index = overlaps.max(dim=0)
        better = highest > best
        best = torch.where(better, highest, best)
        nearest = torch.where(better, index + start, nearest)
        needed |= (overlaps == overlaps.amax(dim=1, keepdim=True)).any(dim=0)
    labels = torch.full((len(anchors),), matcher.labels[0], dtype=torch.int8, device=anchors.device)
    if len(truth):
        for low, high, label in zip(matcher.thresholds[:-1], matcher.thresholds[1:], matcher.labels, strict=True):
            labels[(best >= low) & (best < high)] = label
        if matcher.allow_low_quality_matches:
            labels[needed] = 1
    return nearest, labels
