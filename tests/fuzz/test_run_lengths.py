"""Run lengths of any origin: the pixels that a slow reading gives, or RLEError."""

import re

import numpy as np
import pytest
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cellseg_d2.masks.crop import coco_to_crop, crop_to_coco, kaggle_to_crop
from cellseg_d2.masks.rle import RLEError, clean_runs, decode_coco_many, parse_kaggle_rle, run_problems
from tests.fuzz.cases import fuzz

sides = st.integers(1, 12)
small = st.integers(-20, 160)
tokens = st.one_of(
    small.map(str),
    small.map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.sampled_from(
        ["", "x", "1.0", "1e3", "nan", "٣", "３", "1_0", "+3", "-0", "--1", "5\0", "\0", "0x1", "1,2", "½"]
    ),
    st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 1 - 2**63, 10**400]).map(str),
)
texts = st.one_of(
    st.lists(st.tuples(small, small), max_size=6).map(lambda runs: " ".join(f"{a} {b}" for a, b in runs)),
    st.tuples(st.sampled_from([" ", "  ", "\n", "\xa0"]), st.lists(tokens, max_size=8)).map(lambda p: p[0].join(p[1])),
    st.text(max_size=12),
)


def slow_kaggle(text):
    """Pairs of Python's whole numbers, or None."""
    parts = text.split()
    if len(parts) % 2 or not all(re.fullmatch(r"[+-]?[0-9]+", part, re.ASCII) for part in parts):
        return None
    values = [int(part) for part in parts if len(part) < 30]
    if len(values) < len(parts) or not all(-(2**63) < value < 2**63 for value in values):
        return None
    return list(zip(values[::2], values[1::2], strict=True))


@fuzz(3500, st.tuples(texts, sides, sides))
def test_kaggle_texts(folder, case):
    text, height, width = case
    pairs = slow_kaggle(text)
    if pairs is None:
        with pytest.raises(RLEError):
            parse_kaggle_rle(text)
        raise RLEError("refused, as it should be")
    expected = np.zeros(height * width, int)
    for start, length in pairs:
        expected[max(0, start - 1) : max(0, min(height * width, start - 1 + length))] += 1
    assert np.array_equal(kaggle_to_crop(text, height, width).to_full(height, width).ravel(), expected > 0)
    runs = parse_kaggle_rle(text)
    problems = run_problems(runs, height, width)
    whole = sum(length for _, length in pairs) == expected.sum() and all(length > 0 for _, length in pairs)
    assert (set(problems) <= {"unsorted"}) == (whole and expected.max() == 1), problems
    assert clean_runs(runs, height, width)[:, 1].sum() == (expected > 0).sum()


alphabet = "".join(map(chr, range(48, 112)))


@st.composite
def coco_rles(draw):
    height, width = draw(sides), draw(sides)
    bits = np.frombuffer(draw(st.binary(min_size=18, max_size=18)), np.uint8)
    mask = np.unpackbits(bits)[: height * width].reshape(height, width)
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    kind = draw(st.sampled_from(["valid", "mutated", "text", "list", "else", "size"]))
    size = [height, width]
    if kind == "mutated":
        at, length = draw(st.integers(0, len(counts))), draw(st.integers(0, 2))
        counts = counts[:at] + draw(st.text(alphabet, max_size=2)) + counts[at + length :]
    elif kind == "text":
        counts = draw(st.one_of(st.text(alphabet, max_size=16), st.text(max_size=6), st.binary(max_size=6)))
    elif kind == "list":
        lengths = st.integers(0, height * width) | st.sampled_from([-1, 2**32, 2**63, 2**64, 1.5, "3", None, True, [1]])
        counts = draw(st.lists(lengths, max_size=5))
        if draw(st.booleans()) and all(type(count) is int for count in counts):
            counts.append(height * width - sum(counts))
    elif kind == "else":
        counts = draw(st.sampled_from([None, 3, 2.5, {"a": 1}, [[1]], [[1], [2, 3]]]))
    elif kind == "size":
        odd = st.sampled_from([-height, 0, 1.5, "3", None, True, 2**40, height, float("nan")])
        size = draw(st.lists(odd, max_size=3) | st.sampled_from([None, 3, "34", {"a": 1}]))
    return {"size": size, "counts": counts}, height, width


def slow_coco(counts, size):
    """Alternating counts by the letter of the COCO API's ``rleFrString``, or None."""
    if isinstance(counts, list):
        values = counts if all(type(count) is int for count in counts) else None
    elif isinstance(counts, str | bytes):
        values = slow_decompress(counts if isinstance(counts, bytes) else counts.encode(errors="replace"))
    else:
        values = None
    return values if values is not None and all(v >= 0 for v in values) and sum(values) == size else None


def slow_decompress(data):
    values, at = [], 0
    while at < len(data):
        value, digit, more = 0, 0, True
        while more:
            if at == len(data) or not 48 <= data[at] < 112 or digit > 11:
                return None
            code = data[at] - 48
            value |= (code & 0x1F) << 5 * digit
            more = bool(code & 0x20)
            at, digit = at + 1, digit + 1
            if not more and code & 0x10:
                value -= 1 << 5 * digit
        values.append(value + (values[-2] if len(values) > 2 else 0))
    return values


@fuzz(2500, coco_rles())
def test_coco_rles(folder, case):
    rle, height, width = case
    size = rle["size"]
    fits = isinstance(size, list) and [type(side) for side in size] == [int, int] and size == [height, width]
    values = slow_coco(rle["counts"], height * width) if fits else None
    if not fits:
        with pytest.raises(RLEError):
            decode_coco_many([rle], height, width)
        coco_to_crop(rle)  # of another size it may well be whole
        return
    if values is None:
        good = {"size": [height, width], "counts": [height * width]}
        with pytest.raises(RLEError, match="mask 1"):
            decode_coco_many([good, rle], height, width)
        coco_to_crop(rle)
        raise AssertionError("it was taken for whole")
    flat = np.zeros(height * width, bool)
    for number, (end, count) in enumerate(zip(np.cumsum(values), values, strict=True)):
        flat[end - count : end] = number % 2
    expected = flat.reshape(width, height).T
    crop = coco_to_crop(rle)
    assert np.array_equal(crop.to_full(height, width), expected)
    assert np.array_equal(coco_mask.decode(crop_to_coco(crop, height, width)), expected)
    runs, masks = decode_coco_many([rle, rle], height, width)
    assert np.bincount(masks, runs[:, 1], minlength=2).tolist() == [expected.sum()] * 2
