"""Decoding all masks of an image at once against decoding them one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from cellseg_d2.masks.rle import RLEError, decode_coco, decode_coco_many

stacks = st.tuples(st.integers(0, 6), st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


def encoded(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def runs_of(rle: dict) -> np.ndarray:
    """By pycocotools, pixel by pixel."""
    if isinstance(rle["counts"], list):
        rle = coco_mask.frPyObjects(rle, *rle["size"])
    flat = np.pad(coco_mask.decode(rle).ravel(order="F").astype(int), 1)
    starts = np.flatnonzero(np.diff(flat) == 1)
    return np.stack([starts, np.flatnonzero(np.diff(flat) == -1) - starts], axis=1)


def assert_same_as_one_by_one(rles: list[dict], height: int, width: int) -> None:
    runs, masks = decode_coco_many(rles, height, width)
    assert len(runs) == len(masks)
    for i, rle in enumerate(rles):
        assert np.array_equal(runs[masks == i], decode_coco(rle))
        assert np.array_equal(runs[masks == i], runs_of(rle))


@given(stacks)
def test_equals_one_by_one(stack):
    assert_same_as_one_by_one([encoded(mask) for mask in stack], *stack.shape[1:])


def test_long_runs_in_a_large_image():
    masks = np.zeros((3, 900, 1100), bool)
    masks[0, 5:800, 300:1090] = True
    masks[1, ::7, 1::3] = True
    masks[2, 0, 0] = masks[2, -1, -1] = True
    assert_same_as_one_by_one([encoded(mask) for mask in masks], 900, 1100)


def test_all_forms_of_counts_may_be_mixed():
    text = encoded(np.eye(4, dtype=bool))
    listed = {"size": [4, 4], "counts": [2, 3, 11]}
    assert_same_as_one_by_one([text, {**text, "counts": text["counts"].decode()}], 4, 4)
    assert_same_as_one_by_one([text, listed, text], 4, 4)


@pytest.mark.parametrize("counts", ["", "0", "o", "\x01", b"04", "<1", [3, 4], [-1, 17]])
def test_damage_names_the_mask(counts):
    good = encoded(np.eye(4, dtype=bool))
    with pytest.raises(RLEError, match="mask 1"):
        decode_coco_many([good, {"size": [4, 4], "counts": counts}, good], 4, 4)


def test_counts_may_not_lend_pixels_to_the_next_mask():
    with pytest.raises(RLEError, match="mask 0"):
        decode_coco_many([{"size": [4, 4], "counts": "?"}, {"size": [4, 4], "counts": "a0"}], 4, 4)


def test_another_size_is_refused():
    with pytest.raises(RLEError, match=r"mask 0 is of 4 × 4 pixels, but the image has 4 × 5"):
        decode_coco_many([encoded(np.eye(4, dtype=bool))], 4, 5)
