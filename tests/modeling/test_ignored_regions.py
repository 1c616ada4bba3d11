"""What networks learn from regions in which nobody annotated: nothing."""

import numpy as np
import pytest
import torch
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from pycocotools import mask as coco_mask

from cellseg_d2.data.label_masks import LabelMasks
from cellseg_d2.engine.setup import check_ignored
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.blockwise_rpn import BlockwiseRPN, unknown_boxes
from cellseg_d2.modeling.build import build_network
from tests.dense_discs import batch, configuration, disc_entries

ARCHITECTURES = ["GeneralizedRCNN", "DenseRCNN", "DenseSegmenter"]


def region(*box, size=96):
    """The RLE of a rectangle x0, y0, x1, y1."""
    mask = np.zeros((size, size), dtype=np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    rle = coco_mask.encode(mask)
    return {**rle, "counts": rle["counts"].decode()}


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return disc_entries(tmp_path_factory.mktemp("ignored"))


def losses_of(cfg, samples):
    torch.manual_seed(0)
    network = build_network(cfg).train()
    with EventStorage():
        torch.manual_seed(1)
        losses = network(samples)
    sum(losses.values()).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return losses, sum(float(gradient.abs().sum()) for gradient in gradients)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_image_of_which_nothing_is_known_teaches_nothing(entries, name):
    cfg = configuration(name)
    blank = {**entries[0], "annotations": []}
    losses, gradient = losses_of(cfg, batch(cfg, [{**blank, "ignore": [region(0, 0, 96, 96)]}]))
    assert all(loss.item() == 0 for loss in losses.values()), losses
    assert gradient == 0
    losses, gradient = losses_of(cfg, batch(cfg, [blank]))
    assert sum(losses.values()).item() > 0.1
    assert gradient > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_annotated_cells_in_an_unknown_image_are_learnt(entries, name):
    cfg = configuration(name)
    known = {**entries[0], "annotations": entries[0]["annotations"][:1], "ignore": [region(0, 0, 96, 96)]}
    losses, gradient = losses_of(cfg, batch(cfg, [known, entries[1]]))
    assert gradient > 0
    assert all(torch.isfinite(loss) for loss in losses.values())


def truth_of(boxes, ignore):
    instances = Instances((100, 100))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    nothing = torch.zeros(len(boxes), dtype=torch.long)
    instances.gt_masks = LabelMasks(torch.zeros((1, 100, 100), dtype=torch.uint8), nothing, nothing + 1, ignore)
    return instances


def test_boxes_are_unknown_where_most_of_them_is_in_the_region_and_beside_all_cells():
    ignore = torch.zeros((100, 100), dtype=torch.bool)
    ignore[:, 50:] = True
    truth = truth_of([[60, 10, 90, 40]], ignore)
    asked = {
        (0, 0, 20, 20): False,  # known background
        (45, 60, 55, 70): False,  # half
        (44, 60, 57, 70): True,
        (60, 10, 90, 40): False,  # the cell
        (65, 15, 75, 25): False,  # a part of it
        (60, 30, 90, 60): True,  # a third of it is the cell's
        (90, 90, 130, 130): True,  # mostly outside of the image
        (110, 110, 130, 130): False,  # nothing of it is in the image
    }
    found = unknown_boxes(truth, Boxes(torch.tensor(list(asked), dtype=torch.float32)))
    assert found.tolist() == list(asked.values())
    everything = Boxes(torch.tensor(list(asked), dtype=torch.float32))
    assert not unknown_boxes(truth_of([], None), everything).any()


def test_what_would_take_the_regions_for_background_is_refused(entries):
    marked = {"mine": [entries[0], {**entries[1], "ignore": [region(0, 0, 5, 5)]}]}
    check_ignored(configuration("GeneralizedRCNN"), marked)
    check_ignored(configuration("GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "RPN"), {"mine": entries})
    for opts, key in (
        (["MODEL.PROPOSAL_GENERATOR.NAME", "RPN"], "BlockwiseRPN"),
        (["INPUT.MASK_LAYERS", "False"], "INPUT.MASK_LAYERS True"),
    ):
        with pytest.raises(CellSegError, match=f"^mine has regions marked iscrowd.*{key}"):
            check_ignored(configuration("GeneralizedRCNN", *opts), marked)


def test_what_is_made_of_the_generator_that_knows_the_regions_knows_them_too(entries, monkeypatch):
    class Own(BlockwiseRPN):
        pass

    monkeypatch.setitem(PROPOSAL_GENERATOR_REGISTRY._obj_map, "Own", Own)
    marked = {"mine": [{**entries[1], "ignore": [region(0, 0, 5, 5)]}]}
    check_ignored(configuration("GeneralizedRCNN", "MODEL.PROPOSAL_GENERATOR.NAME", "Own"), marked)
