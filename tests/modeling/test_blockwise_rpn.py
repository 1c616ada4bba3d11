"""Anchors are matched block by block as Detectron2 matches them all at once."""

import numpy as np
import pytest
import torch
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, Instances, pairwise_iou

from cellseg_d2.config import load_config
from cellseg_d2.modeling.blockwise_rpn import BlockwiseRPN, match_blockwise
from cellseg_d2.modeling.build import build_network
from cellseg_d2.weights.plain_detectron2 import plain_settings


def boxes(count, seed, size=120):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, size, (count, 2))
    sides = rng.choice([4.0, 9.0, 16.0, 40.0], (count, 2))  # equal ones, so that overlaps tie
    return torch.as_tensor(np.concatenate([corner.round(), corner.round() + sides], axis=1), dtype=torch.float32)


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("block", [1, 700, 4000, None])
@pytest.mark.parametrize(("cells", "anchors"), [(1, 400), (37, 900), (300, 900), (0, 50)])
def test_the_match_is_detectron2s(cells, anchors, block, low_quality):
    matcher = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=low_quality)
    truth, tiles = boxes(cells, 1), boxes(anchors, 2)
    nearest, labels = match_blockwise(truth, tiles, matcher, block)
    expected_nearest, expected_labels = matcher(pairwise_iou(Boxes(truth), Boxes(tiles)))
    assert torch.equal(labels, expected_labels)
    assert torch.equal(nearest, expected_nearest)


def test_boxes_without_area_and_no_anchors_match_nothing():
    matcher = Matcher([0.3, 0.7], [0, -1, 1])
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert match_blockwise(point, point, matcher)[1].tolist() == [0]
    assert [len(part) for part in match_blockwise(point, point[:0], matcher)] == [0, 0]


@pytest.mark.parametrize("border", [-1, 0])
def test_the_network_learns_from_the_same_anchors(repository, border):
    path = repository / "configs/quickstart/instant_test.yaml"
    found = []
    for name, kind in (("RPN", RPN), ("BlockwiseRPN", BlockwiseRPN)):
        opts = ["MODEL.DEVICE", "cpu", "MODEL.PROPOSAL_GENERATOR.NAME", name, "MODEL.RPN.BOUNDARY_THRESH", border]
        network = build_network(load_config(path, opts)).proposal_generator
        assert type(network) is kind
        instances = [Instances((128, 128), gt_boxes=Boxes(boxes(count, count))) for count in (20, 0, 150)]
        torch.manual_seed(7)
        found.append(network.label_and_sample_anchors([Boxes(boxes(600, 3)), Boxes(boxes(200, 4))], instances))
    (stock_labels, stock_boxes), (labels, matched) = found
    for own, expected in zip(labels, stock_labels, strict=True):
        assert torch.equal(own, expected)
        assert {0, 1} >= set(expected[expected >= 0].tolist())
    for own, expected in zip(matched, stock_boxes, strict=True):
        assert torch.equal(own, expected)
    assert (labels[2] == 1).any()
    assert not (labels[1] == 1).any()


def test_plain_detectron2_is_told_its_own(repository):
    cfg = load_config(repository / "configs/sartorius/mask_rcnn_R_50_FPN.yaml", ["MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.PROPOSAL_GENERATOR.NAME == "BlockwiseRPN"
    assert "PROPOSAL_GENERATOR" not in plain_settings(cfg)["MODEL"]
