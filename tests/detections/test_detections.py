"""Masks pasted into boxes, against Detectron2's own pasting."""

import numpy as np
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.instances import to_detections
from cellseg_d2.masks.crop import MaskCrop


def paste(masks, boxes, height, width, threshold=0.5):
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    return Detections(height, width, boxes, np.ones(len(masks)), np.zeros(len(masks), int), masks).crops(threshold)


@pytest.mark.parametrize("size", [7, 14, 28, 56])
def test_pasting_equals_detectron2(size):
    generator = np.random.default_rng(size)
    height, width, count = 90, 130, 60
    corners = generator.uniform(-8, 1, (count, 2)) + generator.uniform(0, 1, (count, 2)) * (width, height)
    sides = generator.uniform(0.5, 60, (count, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).clip(0, [width, height, width, height])
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])].astype(np.float32)
    masks = generator.uniform(0, 1, (len(boxes), size, size)).astype(np.float32)
    stock = paste_masks_in_image(torch.from_numpy(masks), Boxes(torch.from_numpy(boxes)), (height, width)).numpy()
    ours = np.stack([crop.to_full(height, width) for crop in paste(masks, boxes, height, width)])
    assert stock.sum() > 1000
    # Both compute in float32, in another order: only pixels within rounding of the threshold may differ.
    assert np.count_nonzero(ours != stock) <= 1e-4 * np.count_nonzero(stock)


def test_a_full_mask_fills_its_box():
    [crop] = paste(np.ones((1, 28, 28)), [(10, 20, 30, 50)], 100, 100)
    assert crop.box == (10, 20, 30, 50)
    assert crop.mask.all()


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (-20, 0, -5, 9), (120, 5, 130, 9), (5, 9, 9, 5)])
def test_boxes_without_pixels_give_empty_crops(box):
    [crop] = paste(np.ones((1, 28, 28)), [box], 100, 100)
    assert crop.area == 0


def test_pasted_and_unpasted_instances_agree():
    generator = np.random.default_rng(0)
    boxes = torch.tensor([[3.0, 4.0, 21.5, 30.25], [10.0, 10.0, 40.0, 22.0]])
    probabilities = torch.from_numpy(generator.uniform(0, 1, (2, 1, 28, 28)).astype(np.float32))
    fields = {"pred_boxes": Boxes(boxes), "scores": torch.tensor([0.9, 0.3]), "pred_classes": torch.tensor([2, 0])}
    unpasted = to_detections(Instances((40, 50), pred_masks=probabilities, **fields))
    pasted = paste_masks_in_image(probabilities[:, 0], Boxes(boxes), (40, 50))
    stock = to_detections(Instances((40, 50), pred_masks=pasted, **fields))
    assert unpasted.classes.tolist() == stock.classes.tolist() == [2, 0]
    for ours, theirs in zip(unpasted.crops(), stock.crops(), strict=True):
        assert np.array_equal(ours.to_full(40, 50), theirs.to_full(40, 50))


def test_select_by_mask_and_by_index():
    crops = [MaskCrop(i, i, np.ones((1, i + 1), bool)) for i in range(3)]
    detections = Detections(9, 9, np.zeros((3, 4), np.float32), np.array([0.1, 0.2, 0.3]), np.arange(3), crops)
    assert [c.area for c in detections.select(np.array([True, False, True])).crops()] == [1, 3]
    assert [c.area for c in detections.select(np.array([2, 0])).crops()] == [3, 1]
    assert len(detections.select(np.zeros(3, bool))) == 0


def test_many_masks_are_pasted_as_one_by_one():
    """More than are worked out at a time, and boxes without pixels among them."""
    generator = np.random.default_rng(9)
    boxes = generator.uniform(-20, 70, (300, 4)).astype(np.float32)
    masks = generator.uniform(0, 1, (300, 14, 14)).astype(np.float32)
    detections = Detections(40, 50, boxes, np.ones(300), np.zeros(300, int), masks)
    pasted = list(detections.soft_crops())
    assert len(pasted) == 300
    assert 20 < sum(soft.probability.size > 0 for soft in pasted) < 200
    for i, soft in enumerate(pasted):
        [one] = detections.select([i]).soft_crops()
        assert (soft.top, soft.left) == (one.top, one.left)
        assert np.array_equal(soft.probability, one.probability)


def test_soft_crops_are_what_the_binary_ones_are_cut_from():
    generator = np.random.default_rng(4)
    boxes = np.array([[3.0, 4.0, 21.5, 30.25], [10.0, 10.0, 40.0, 22.0]], np.float32)
    masks = generator.uniform(0, 1, (2, 28, 28)).astype(np.float32)
    detections = Detections(40, 50, boxes, np.array([0.9, 0.3]), np.array([0, 0]), masks)
    for thresholds in (0.5, np.array([0.3, 0.7])):
        expected = [
            paste([m], [b], 40, 50, t)[0]
            for m, b, t in zip(masks, boxes, [*np.broadcast_to(thresholds, 2)], strict=True)
        ]
        for soft, crop, same in zip(detections.soft_crops(), detections.crops(thresholds), expected, strict=True):
            assert crop.box == same.box
            assert np.array_equal(crop.mask, same.mask)
            h, w = crop.mask.shape
            inside = soft.probability[crop.top - soft.top :, crop.left - soft.left :][:h, :w]
            assert soft.probability.max() <= 1
            assert inside[crop.mask].min() >= np.min(thresholds)


def test_soft_crops_of_binary_masks_are_zeros_and_ones():
    crops = [MaskCrop(2, 3, np.array([[True, False], [True, True]]))]
    detections = Detections(9, 9, np.zeros((1, 4), np.float32), np.ones(1), np.zeros(1, int), crops)
    (soft,) = detections.soft_crops()
    assert (soft.top, soft.left, soft.probability.tolist()) == (2, 3, [[1, 0], [1, 1]])
    assert detections.mask_scores().tolist() == [1]


def test_mask_scores_are_means_inside_the_mask():
    masks = np.zeros((3, 4, 4), np.float32)
    masks[0, :2] = 0.75
    masks[1, 0, 0], masks[1, 1, 1], masks[1, 2, 2] = 0.5, 1.0, 0.25
    detections = Detections(9, 9, np.zeros((3, 4), np.float32), np.ones(3), np.zeros(3, int), masks)
    assert detections.mask_scores().tolist() == [0.75, 0.75, 0]
    assert detections.mask_scores(np.array([0.8, 0.2, 0.5])).tolist() == pytest.approx([0, 1.75 / 3, 0])


def test_an_outline_at_half_the_expected_dice_reaches_it():
    """Truths are drawn from the probabilities: no other threshold is better, and the coefficient is as expected."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:56, :56] / 55 - 0.5
    for sharpness in (4, 12, 60):
        mask = 1 / (1 + np.exp(sharpness * (np.hypot(x, y) - 0.3) / 0.3))
        detections = Detections(56, 56, np.array([[0, 0, 56, 56]]), np.ones(1), np.zeros(1, int), mask[None])
        [expected] = detections.expected_dice
        truths = generator.uniform(size=(200, 56, 56)) < mask

        def reached(threshold, mask=mask, truths=truths):
            drawn = mask >= threshold
            return (2 * (truths & drawn).sum(axis=(1, 2)) / (drawn.sum() + truths.sum(axis=(1, 2)))).mean()

        assert reached(expected / 2) == pytest.approx(expected, abs=0.005)
        assert reached(expected / 2) >= max(map(reached, np.linspace(0.05, 0.95, 19))) - 1e-3


def test_expected_dice_of_masks_that_are_sure():
    masks = np.zeros((3, 4, 4), np.float32)
    masks[0, :2], masks[1, :2] = 1, 0.5
    detections = Detections(9, 9, np.zeros((3, 4), np.float32), np.ones(3), np.zeros(3, int), masks)
    assert detections.expected_dice.tolist() == pytest.approx([1, 2 / 3, 0])
    crops = [MaskCrop(0, 0, np.ones((2, 2), bool))]
    assert Detections(9, 9, np.zeros((1, 4)), np.ones(1), np.zeros(1, int), crops).expected_dice.tolist() == [1]
    assert detections.select([]).expected_dice.tolist() == []


def test_moved_masks_are_those_of_moved_boxes_and_of_whole_pixels():
    generator = np.random.default_rng(8)
    masks = generator.uniform(0.2, 1, (3, 7, 7)).astype(np.float32)
    boxes = np.array([[4, 5, 11, 12], [20, 20, 34, 27], [30, 1, 37, 8]], np.float32)
    soft = Detections(40, 40, boxes, np.ones(3), np.zeros(3, int), masks)
    assert soft.moved(0.25, -0.5).boxes.tolist() == (boxes + np.float32([0.25, -0.5, 0.25, -0.5])).tolist()
    binary = Detections(40, 40, boxes, np.ones(3), np.zeros(3, int), soft.crops())
    for dx, dy, right, down in ((2, -3, 2, -3), (0.4, -0.3, 0, 0), (1.6, 5.6, 2, 6)):
        found = binary.moved(dx, dy).crops()
        for before, after in zip(soft.crops(), found, strict=True):
            full = np.pad(before.to_full(40, 40), 10)
            expected = np.roll(full, (down, right), (0, 1))[10:-10, 10:-10]  # what leaves the image is gone
            assert np.array_equal(after.to_full(40, 40), expected)
    whole = soft.moved(2, -1)
    for before, after in zip(soft.crops(), whole.crops(), strict=True):
        assert np.array_equal(np.roll(before.to_full(40, 40), (-1, 2), (0, 1)), after.to_full(40, 40))
