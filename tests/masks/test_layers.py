"""Label layers against the full-size masks that they stand for."""

import gzip
import pickle
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from cellseg_d2.masks.crop import MaskCrop, crop_to_coco, crop_to_kaggle, kaggle_to_crop
from cellseg_d2.masks.layers import LabelLayers
from tests.shapes import scattered_discs

# Random pixels overlap far more than any cells do.
stacks = st.tuples(st.integers(0, 7), st.integers(1, 10), st.integers(1, 10)).flatmap(lambda shape: arrays(bool, shape))


def from_stack(stack: np.ndarray) -> LabelLayers:
    return LabelLayers.from_crops([MaskCrop.from_full(mask) for mask in stack], *stack.shape[1:])


def to_stack(layers: LabelLayers) -> np.ndarray:
    pairs = zip(layers.layer_of_cell, layers.label_of_cell, strict=True)
    masks = [layers.layers[layer] == label for layer, label in pairs]
    return np.array(masks, dtype=bool).reshape(-1, layers.height, layers.width)


@given(stacks)
def test_every_cell_keeps_its_pixels(stack):
    layers = from_stack(stack)
    assert np.array_equal(to_stack(layers), stack)
    assert np.array_equal([crop.to_full(*stack.shape[1:]) for crop in layers.crops()], stack.tolist())
    assert len({*zip(layers.layer_of_cell.tolist(), layers.label_of_cell.tolist(), strict=True)}) == len(layers)


@given(stacks)
def test_coco_and_kaggle_round_trips(stack):
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in stack]
    layers = LabelLayers.from_coco(rles, *stack.shape[1:])
    assert np.array_equal(to_stack(layers), stack)
    assert [rle["counts"].encode() for rle in layers.to_coco()] == [rle["counts"] for rle in rles]


@given(stacks)
def test_areas_and_boxes(stack):
    layers = from_stack(stack)
    assert np.array_equal(layers.areas, stack.sum(axis=(1, 2)))
    assert np.array_equal(layers.boxes, np.array([MaskCrop.from_full(mask).box for mask in stack]).reshape(-1, 4))


def test_the_boxes_of_a_rectangle_and_of_nothing():
    crops = [MaskCrop(2, 3, np.ones((4, 5), bool)), MaskCrop(0, 0, np.zeros((0, 0), bool))]
    layers = LabelLayers.from_crops(crops, 20, 30)
    assert layers.boxes.tolist() == [[3, 2, 8, 6], [0, 0, 0, 0]]
    assert layers.areas.tolist() == [20, 0]
    assert layers.crop(1).mask.shape == (0, 0)


@given(stacks, st.data())
def test_select(stack, data):
    layers = from_stack(stack)
    keep = data.draw(arrays(bool, len(stack)))
    assert np.array_equal(to_stack(layers.select(keep)), stack[keep])
    order = np.array(data.draw(st.permutations(np.flatnonzero(keep).tolist())), dtype=np.int64)
    chosen = layers.select(order)
    assert np.array_equal(to_stack(chosen), stack[order])
    # What was not selected still lies in the layers, and must not be seen.
    assert len(chosen.to_coco()) == len(order)
    assert np.array_equal(chosen.boxes, layers.boxes[order])
    assert np.array_equal(chosen.areas, layers.areas[order])


def test_a_cell_cannot_be_selected_twice():
    with pytest.raises(ValueError, match="only once"):
        from_stack(scattered_discs(3, 20, 20)).select(np.array([0, 1, 0]))


@pytest.mark.parametrize(
    ("on_layer", "on_stack"),
    [
        (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1]),
        (lambda a: np.rot90(a), lambda a: np.rot90(a, axes=(1, 2))),
        (lambda a: a[5:25, 10:20], lambda a: a[:, 5:25, 10:20]),
        (lambda a: a.repeat(2, 0).repeat(3, 1), lambda a: a.repeat(2, 1).repeat(3, 2)),
    ],
    ids=["flip", "quarter turn", "crop", "zoom"],
)
def test_mapping_the_layers_maps_every_mask(on_layer, on_stack):
    stack = scattered_discs(40, 40, 50)
    mapped = from_stack(stack).map_layers(on_layer)
    expected = on_stack(stack)
    assert np.array_equal(to_stack(mapped), expected)
    assert np.array_equal(mapped.areas, expected.sum(axis=(1, 2)))


def test_a_map_that_interpolates_is_refused():
    with pytest.raises(ValueError, match="from uint8 into float64"):
        from_stack(scattered_discs(3, 20, 20)).map_layers(lambda layer: layer * 0.5)


def test_cells_that_do_not_overlap_share_one_layer():
    stack = np.zeros((200, 20, 40), bool)
    stack.reshape(200, -1)[np.arange(200), 3 * np.arange(200)] = True
    assert from_stack(stack).layers.shape == (1, 20, 40)


def test_a_chain_of_overlaps_needs_two_layers_and_a_pile_as_many_as_cells():
    chain = np.zeros((30, 3, 100), bool)
    for i, mask in enumerate(chain):
        mask[1, 3 * i : 3 * i + 5] = True
    assert len(from_stack(chain).layers) == 2
    assert len(from_stack(np.ones((9, 4, 4), bool)).layers) == 9


@pytest.mark.parametrize(
    ("number", "shape", "dtype"),
    [(255, (1, 40, 50), np.uint8), (256, (1, 40, 50), np.uint16), (1000, (1, 40, 50), np.uint16)],
)
def test_labels_take_as_few_bytes_as_they_can(number, shape, dtype):
    stack = np.zeros((number, 40, 50), bool)
    stack.reshape(number, -1)[np.arange(number), 2 * np.arange(number)] = True
    layers = from_stack(stack)
    assert (layers.layers.shape, layers.layers.dtype) == (shape, dtype)
    assert np.array_equal(to_stack(layers), stack)


def test_many_cells_that_overlap_still_fit_into_bytes():
    """700 cells in 3 layers at the least: 3 layers of bytes hold 765 labels, 3 layers of uint16 are twice as large."""
    stack = np.zeros((700, 40, 60), bool)
    stack.reshape(700, -1)[np.arange(700), 3 * np.arange(700)] = True
    stack[:3, 0, 0] = True
    layers = from_stack(stack)
    assert (len(layers.layers), layers.layers.dtype) == (3, np.uint8)
    assert np.array_equal(to_stack(layers), stack)


def test_crops_are_cut_at_the_border():
    layers = LabelLayers.from_crops([MaskCrop(-1, 3, np.ones((3, 4), bool))], 4, 5)
    assert layers.boxes.tolist() == [[3, 0, 5, 2]]


def test_without_cells_the_size_is_kept():
    layers = LabelLayers.from_coco([], 4, 5)
    assert len(layers) == 0
    assert layers.boxes.shape == (0, 4)
    assert layers.to_coco() == layers.crops() == []
    assert layers.map_layers(np.transpose).layers.shape == (1, 5, 4)
    assert from_stack(scattered_discs(3, 4, 5)).select(np.zeros(3, bool)).to_coco() == []


def test_pickling():
    layers = from_stack(scattered_discs(20, 30, 30))
    assert np.array_equal(to_stack(pickle.loads(pickle.dumps(layers))), to_stack(layers))


@pytest.mark.parametrize(
    ("layers", "layer_of_cell", "label_of_cell", "problem"),
    [
        (np.zeros((4, 5), np.uint8), [], [], "must be"),
        (np.zeros((1, 4, 5), np.int64), [], [], "must be"),
        (np.zeros((1, 4, 5), np.uint8), [0], [], "1 cells have layers"),
        (np.zeros((1, 4, 5), np.uint8), [1], [1], "not one of the 1"),
        (np.zeros((1, 4, 5), np.uint8), [0], [256], "must be 1…255"),
        (np.zeros((1, 4, 5), np.uint8), [0], [0], "must be 1…255"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(layers, layer_of_cell, label_of_cell, problem):
    with pytest.raises(ValueError, match=problem):
        LabelLayers(layers, np.array(layer_of_cell, np.int64), np.array(label_of_cell, np.int64))


def test_real_masks_are_exact(shared_data):
    """The most crowded and the most overlapping image, and every 60th."""
    with gzip.open(shared_data / "sartorius_annotations_only.csv.gz", "rt") as file:
        rows = pd.read_csv(file)
    texts = defaultdict(list)
    for image, text in zip(rows["id"], rows["annotation"], strict=True):
        texts[image].append(text)
    chosen = {"d164e96bb7a9", "a9fc5e872671", *sorted(texts)[::60]}
    for image in chosen:
        crops = [kaggle_to_crop(text, 520, 704) for text in texts[image]]
        rles = [crop_to_coco(crop, 520, 704) for crop in crops]
        layers = LabelLayers.from_coco(rles, 520, 704)
        assert layers.to_coco() == rles
        assert [crop_to_kaggle(crop, 704) for crop in layers.crops()] == texts[image]
        assert layers.areas.tolist() == [crop.area for crop in crops]
        assert layers.boxes.tolist() == [list(crop.box) for crop in crops]
        assert LabelLayers.from_crops(crops, 520, 704).to_coco() == rles
        if len(crops) > 500:
            assert layers.nbytes * 100 <= len(crops) * 520 * 704, "a hundredth of one byte per cell and pixel"
