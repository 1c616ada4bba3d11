"""LabelMasks against Detectron2's BitMasks, alone and inside a training step."""

import copy
import gzip
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data.detection_utils import filter_empty_instances
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.data import DataLoader

from cellseg_d2.data.label_masks import LabelMasks
from cellseg_d2.masks.crop import MaskCrop, kaggle_to_crop
from cellseg_d2.masks.layers import LabelLayers
from tests.shapes import scattered_discs
from tests.stock_masks import to_bitmasks

stacks = st.tuples(st.integers(0, 6), st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


def label_masks(stack: np.ndarray) -> LabelMasks:
    crops = [MaskCrop.from_full(mask) for mask in stack]
    return LabelMasks.from_label_layers(LabelLayers.from_crops(crops, *stack.shape[1:]))


def same(ours: LabelMasks, expected: torch.Tensor) -> bool:
    return torch.equal(to_bitmasks(ours).tensor, expected)


def jittered(boxes: torch.Tensor, share: float, seed: int = 0) -> torch.Tensor:
    """Boxes as proposals are: off by about ``share`` of their size on each side, possibly beyond the image."""
    sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + share * sizes * torch.randn(boxes.shape, generator=torch.Generator().manual_seed(seed))
    return ordered(moved)


def ordered(boxes: torch.Tensor) -> torch.Tensor:
    """The corners swapped where a box is inside out: ROIAlign refuses those."""
    return torch.cat([torch.minimum(boxes[:, :2], boxes[:, 2:]), torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)


@given(stacks)
def test_measures_equal_the_stock_ones(stack):
    ours, stock = label_masks(stack), BitMasks(stack)
    assert len(ours) == len(stock)
    assert ours.image_size == tuple(stock.image_size)
    assert same(ours, stock.tensor)
    assert torch.equal(ours.get_bounding_boxes().tensor, stock.get_bounding_boxes().tensor)
    assert torch.equal(ours.nonempty(), stock.nonempty())
    assert torch.equal(ours.areas(), stock.tensor.sum(dim=(1, 2)))
    assert torch.equal(ours.nonempty(threshold=5), stock.tensor.sum(dim=(1, 2)) > 5)
    assert all(torch.equal(a, b) for a, b in zip(ours, stock, strict=True))


@pytest.mark.parametrize(
    "item",
    [
        slice(2, 9, 3),
        torch.tensor([4, 4, 0, -1]),
        torch.tensor([], dtype=torch.int64),
        torch.arange(12) % 3 == 0,
        np.array([1, 5]),
        np.arange(12) % 2 == 0,
        [3, 1],
    ],
    ids=str,
)
def test_indexing(item):
    stack = scattered_discs(12, 30, 40)
    ours = label_masks(stack)
    some = ours[item]
    assert same(some, BitMasks(stack)[item].tensor)
    assert some.layers is ours.layers, "indexing copies no pixel"


def test_indexing_by_number():
    stack = torch.from_numpy(scattered_discs(12, 30, 40))
    ours = label_masks(stack.numpy())
    assert same(ours[5], stack[5:6])
    assert same(ours[-1], stack[-1:])
    assert same(ours[torch.tensor(5)], stack[5:6])
    with pytest.raises(IndexError):
        ours[12]


def test_cat_keeps_shared_layers_once():
    stack = torch.from_numpy(scattered_discs(12, 30, 40))
    other = torch.from_numpy(scattered_discs(7, 30, 40, seed=1))
    a, b = label_masks(stack.numpy()), label_masks(other.numpy())
    assert LabelMasks.cat([a[:3], a[8:]]).layers is a.layers
    joined = LabelMasks.cat([a[:3], b, a[8:]])
    assert len(joined.layers) == len(a.layers) + len(b.layers)
    assert same(joined, torch.cat([stack[:3], other, stack[8:]]))


def test_more_labels_than_a_byte_holds():
    stack = np.zeros((600, 30, 50), bool)
    stack.reshape(600, -1)[np.arange(600), 2 * np.arange(600)] = True
    ours = label_masks(stack)
    assert ours.layers.dtype == torch.int16
    assert same(ours, torch.from_numpy(stack))
    assert torch.equal(ours.get_bounding_boxes().tensor, BitMasks(stack).get_bounding_boxes().tensor)
    few = scattered_discs(3, 30, 50)
    mixed = LabelMasks.cat([label_masks(few), ours])
    assert same(mixed, torch.from_numpy(np.concatenate([few, stack])))
    boxes = ours.get_bounding_boxes().tensor + 0.3
    assert torch.equal(ours.crop_and_resize(boxes, 4), BitMasks(stack).crop_and_resize(boxes, 4))


def test_read_only_layers_are_not_written_to():
    layers = LabelLayers.from_crops([MaskCrop(1, 1, np.ones((2, 2), bool))], 5, 5)
    layers.layers.flags.writeable = False
    ours = LabelMasks.from_label_layers(layers)
    ours.layers.zero_()
    assert layers.areas.tolist() == [4]


def test_targets_of_whole_pixels_are_the_pixels():
    """A bin that is one pixel is that pixel; a bin of k × k pixels is their majority, with half enough."""
    stack = scattered_discs(20, 60, 70)
    ours = label_masks(stack)
    boxes = torch.tensor([[10.0, 20.0, 38.0, 48.0]]).repeat(20, 1)
    pixels = torch.from_numpy(stack[:, 20:48, 10:38])
    assert torch.equal(ours.crop_and_resize(boxes, 28), pixels)
    assert torch.equal(ours.crop_and_resize(boxes, 7), pixels.float().reshape(20, 7, 4, 7, 4).mean(dim=(2, 4)) >= 0.5)


@pytest.mark.parametrize("mask_size", [1, 7, 28, 56])
def test_targets_agree_with_stock(mask_size):
    stack = scattered_discs(150, 90, 110)
    ours, stock = label_masks(stack), BitMasks(stack)
    for seed, share in enumerate([0, 0.1, 1.0]):  # the last leaves the image
        boxes = jittered(stock.get_bounding_boxes().tensor, share, seed)
        a, b = ours.crop_and_resize(boxes, mask_size), stock.crop_and_resize(boxes, mask_size)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        # Where the average is ½ but for rounding, either answer is right.
        assert (a != b).sum() <= 1e-4 * a.numel()


@settings(deadline=None)
@given(arrays(bool, (3, 11, 9)), arrays(np.float32, (3, 4), elements=st.integers(-24, 48).map(lambda v: v / 4)))
def test_targets_are_identical_where_nothing_is_rounded(stack, boxes):
    """Coordinates in quarters of pixels, also beside the image or without extent: all sums are exact in float32."""
    boxes = ordered(torch.from_numpy(boxes))
    for mask_size in (1, 4):
        expected = BitMasks(stack).crop_and_resize(boxes, mask_size)
        samples = ((boxes[:, 2:] - boxes[:, :2]) / mask_size).ceil().clamp(min=1)
        exact = (torch.log2(samples) % 1 == 0).all(dim=1)  # only then are the places of samples binary fractions
        assert torch.equal(label_masks(stack).crop_and_resize(boxes, mask_size)[exact], expected[exact])


def test_chunks_do_not_change_the_targets(monkeypatch):
    stack = scattered_discs(60, 80, 80)
    ours = label_masks(stack)
    boxes = jittered(ours.get_bounding_boxes().tensor, 0.3)
    boxes[3] = torch.tensor([0, 0, 80, 80])
    whole = ours.crop_and_resize(boxes, 14)
    monkeypatch.setattr("cellseg_d2.data.label_masks.CHUNK_ELEMENTS", 1)
    assert torch.equal(ours.crop_and_resize(boxes, 14), whole)


def test_targets_of_no_mask():
    ours = label_masks(scattered_discs(3, 20, 20))[:0]
    assert ours.crop_and_resize(torch.zeros(0, 4), 28).shape == (0, 28, 28)
    assert to_bitmasks(ours).tensor.shape == (0, 20, 20)
    assert ours.get_bounding_boxes().tensor.shape == (0, 4)


def test_targets_ignore_mixed_precision():
    """The loss runs under autocast, whose eleven bits would spoil coordinates of a thousand pixels."""
    stack = scattered_discs(40, 60, 1200)
    ours = label_masks(stack)
    boxes = jittered(ours.get_bounding_boxes().tensor, 0.1)
    expected = ours.crop_and_resize(boxes, 28)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours.crop_and_resize(boxes, 28), expected)


def test_the_number_of_boxes_must_be_that_of_the_masks():
    with pytest.raises(ValueError, match="2 boxes for 3 masks"):
        label_masks(scattered_discs(3, 20, 20)).crop_and_resize(torch.zeros(2, 4), 28)


def make_instances(stack: np.ndarray, stock: bool) -> Instances:
    masks = BitMasks(stack) if stock else label_masks(stack)
    instances = Instances(stack.shape[1:], gt_masks=masks, gt_classes=torch.arange(len(stack)) % 3)
    instances.gt_boxes = masks.get_bounding_boxes()
    return instances


def test_as_a_field_of_instances():
    stack = scattered_discs(12, 30, 40)
    stack[4] = False
    ours = make_instances(stack, stock=False)
    kept = filter_empty_instances(ours)
    assert same(kept.gt_masks, torch.from_numpy(stack[np.arange(12) != 4]))
    assert same(ours[5].gt_masks, torch.from_numpy(stack[5:6]))
    joined = Instances.cat([ours[ours.gt_classes == 1], ours[7:]]).to("cpu")
    assert same(joined.gt_masks, torch.from_numpy(np.concatenate([stack[1::3], stack[7:]])))
    assert same(pickle.loads(pickle.dumps(ours)).gt_masks, torch.from_numpy(stack))
    assert same(copy.deepcopy(ours).gt_masks, torch.from_numpy(stack))


class Samples(torch.utils.data.Dataset):
    """Four images' instances, made where they are asked for."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Instances:
        return make_instances(scattered_discs(10, 30, 40, seed=index), stock=False)


def test_coming_from_a_worker_process():
    loader = DataLoader(Samples(), batch_size=None, num_workers=1)
    for index, instances in enumerate(loader):
        assert same(instances.gt_masks, torch.from_numpy(scattered_discs(10, 30, 40, seed=index)))


def tiny_mask_rcnn() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 64
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 100
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14
    return cfg


def train(stock: bool, steps: int) -> list[dict[str, float]]:
    """Losses of a few steps on an image with cells and one without."""
    torch.manual_seed(0)
    model = build_model(tiny_mask_rcnn()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    stacks = [scattered_discs(25, 64, 96, seed=1), np.zeros((0, 64, 96), bool)]
    batch = []
    for stack in stacks:
        image = torch.from_numpy(stack.any(axis=0) * np.uint8(200)).expand(3, -1, -1)
        batch.append({"image": image, "instances": make_instances(stack, stock)})
    history = []
    with EventStorage():
        for _ in range(steps):
            losses = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            history.append({name: loss.item() for name, loss in losses.items()})
    return history


def test_a_mask_rcnn_learns_the_same_as_from_stock_masks():
    """From the second step on, the losses also depend on the gradients of the steps before."""
    ours, stock = train(stock=False, steps=3), train(stock=True, steps=3)
    assert ours[0]["loss_mask"] > 0
    assert ours[0]["loss_mask"] != ours[2]["loss_mask"]
    for a, b in zip(ours, stock, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_real_targets_agree_with_stock(shared_data):
    """40 cells each of the most crowded and the most overlapping image, with proposals around them."""
    with gzip.open(shared_data / "sartorius_annotations_only.csv.gz", "rt") as file:
        rows = pd.read_csv(file)
    for image in ("d164e96bb7a9", "a9fc5e872671"):
        texts = rows["annotation"][rows["id"] == image]
        layers = LabelLayers.from_crops([kaggle_to_crop(text, 520, 704) for text in texts], 520, 704)
        zoomed = layers.map_layers(lambda layer: layer[:400, :500].repeat(2, axis=0).repeat(2, axis=1))
        for masks in (LabelMasks.from_label_layers(layers), LabelMasks.from_label_layers(zoomed)):
            masks = masks[masks.nonempty()][:40]
            stock = to_bitmasks(masks)
            tight = stock.get_bounding_boxes().tensor
            assert torch.equal(masks.get_bounding_boxes().tensor, tight)
            for boxes in (tight, jittered(tight, 0.1)):
                height, width = masks.image_size
                proposals = Boxes(boxes)
                proposals.clip((height, width))
                ours, expected = (m.crop_and_resize(proposals.tensor, 28) for m in (masks, stock))
                assert (ours == expected).float().mean() >= 0.9999
