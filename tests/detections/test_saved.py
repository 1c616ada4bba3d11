"""Detections that go into a file come out of it."""

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.saved import load_detections, load_many, save_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop


def detections(masks, height=40, width=50, seed=0):
    generator = np.random.default_rng(seed)
    count = len(masks)
    boxes = generator.uniform(0, 40, (count, 4)).astype(np.float32)
    scores = generator.uniform(0, 1, count).astype(np.float32)
    return Detections(height, width, boxes, scores, generator.integers(0, 3, count), masks)


@pytest.fixture
def images():
    generator = np.random.default_rng(1)
    crops = [MaskCrop(i, 2 * i, generator.uniform(size=(i + 1, 5)) < 0.5) for i in range(4)]
    return {
        "soft": detections(generator.uniform(size=(3, 28, 28)).astype(np.float32)),
        "nothing": detections(np.zeros((0, 28, 28), np.float32)),
        "binary": detections([*crops, MaskCrop(0, 0, np.zeros((0, 0), bool))], 33, 44, seed=2),
        "finer": detections(generator.uniform(size=(2, 56, 56)).astype(np.float32), seed=3),
        "no cells": detections([]),
    }


def test_round_trip(images, tmp_path):
    save_detections(tmp_path / "detections.npz", images, ["shsy5y", "astro", "cört"])
    raw = load_detections(tmp_path / "detections.npz")
    assert raw.class_names == ["shsy5y", "astro", "cört"]
    assert list(raw.images) == list(images)
    for name, expected in images.items():
        found = raw.images[name]
        assert (found.height, found.width, len(found)) == (expected.height, expected.width, len(expected))
        for field in ("boxes", "scores", "classes"):
            assert np.array_equal(getattr(found, field), getattr(expected, field))
            assert getattr(found, field).dtype == getattr(expected, field).dtype
        if isinstance(expected.masks, np.ndarray):
            assert found.masks.dtype == np.float32
            assert found.masks.shape == expected.masks.shape
            assert np.abs(found.masks - expected.masks).max(initial=0) < 0.0005
        else:
            for ours, theirs in zip(found.masks, expected.masks, strict=True):
                assert ours.box == theirs.box
                assert np.array_equal(ours.mask, theirs.mask)
    assert [path.name for path in tmp_path.iterdir()] == ["detections.npz"], "nothing temporary is left"


def test_no_images_at_all(tmp_path):
    save_detections(tmp_path / "none.npz", {}, ["cell"])
    assert load_detections(tmp_path / "none.npz").images == {}


def test_damaged_files_are_one_sentence(images, tmp_path):
    good = tmp_path / "good.npz"
    save_detections(good, images, ["x", "y", "z"])
    content = good.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 30):
        (tmp_path / "bad.npz").write_bytes(content[:cut])
        with pytest.raises(CellSegError, match=r"bad\.npz is not a detections\.npz"):
            load_detections(tmp_path / "bad.npz")
    middle = bytearray(content)
    middle[len(content) // 2 : len(content) // 2 + 200] = b"\0" * 200
    (tmp_path / "bad.npz").write_bytes(middle)
    with pytest.raises(CellSegError, match="is not a detections"):
        load_detections(tmp_path / "bad.npz")
    with pytest.raises(CellSegError, match="no file of detections"):
        load_detections(tmp_path / "missing.npz")


def test_other_files_and_pickles_are_refused(images, tmp_path):
    np.savez(tmp_path / "other.npz", boxes=np.zeros((2, 4)))
    np.savez(tmp_path / "pickle.npz", format=np.array([{"code": 1}], dtype=object))
    save_detections(tmp_path / "good.npz", images, ["x", "y", "z"])
    arrays = dict(np.load(tmp_path / "good.npz"))
    np.savez(tmp_path / "short.npz", **{**arrays, "scores": arrays["scores"][:-1]})
    np.savez(tmp_path / "format.npz", **{**arrays, "format": np.array("another 7")})
    assert load_detections(tmp_path / "good.npz").images.keys() == images.keys()
    for name in ("other", "pickle", "short", "format"):
        with pytest.raises(CellSegError, match=rf"{name}\.npz is not a detections\.npz"):
            load_detections(tmp_path / f"{name}.npz")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scores", lambda values: np.where(np.arange(len(values)) == 1, np.nan, values)),
        ("classes", lambda values: values + 1),
        ("counts", lambda values: values - values[0]),
        ("mask_sizes", lambda values: -values),
        ("shapes", lambda values: values * 100_000),
        ("crop_boxes", lambda values: values * 1000),
        ("crop_bits", lambda values: values[:2]),
        ("names", lambda values: np.arange(len(values))),
    ],
)
def test_numbers_that_no_detections_have_are_refused(images, tmp_path, name, change):
    save_detections(tmp_path / "good.npz", images, ["x", "y", "z"])
    arrays = dict(np.load(tmp_path / "good.npz"))
    np.savez(tmp_path / "bad.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(CellSegError, match=r"bad\.npz is not a detections\.npz"):
        load_detections(tmp_path / "bad.npz")


def test_a_file_that_unpacks_to_any_size_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", format=np.zeros(2**26, np.uint8))
    with pytest.raises(CellSegError, match=r"it unpacks to 0\.1 GB"):
        load_detections(tmp_path / "bomb.npz")


def test_several_files_are_read_as_one(images, tmp_path):
    first, second = dict(list(images.items())[:2]), dict(list(images.items())[2:])
    save_detections(tmp_path / "a.npz", first, ["x", "y", "z"])
    save_detections(tmp_path / "b.npz", second, ["x", "y", "z"])
    assert list(load_many([tmp_path / "a.npz", tmp_path / "b.npz"]).images) == list(images)
    with pytest.raises(CellSegError, match="'nothing' is in"):
        load_many([tmp_path / "a.npz", tmp_path / "a.npz"])
    save_detections(tmp_path / "c.npz", second, ["z", "y", "x"])
    with pytest.raises(CellSegError, match="with the classes z, y, x"):
        load_many([tmp_path / "a.npz", tmp_path / "c.npz"])


def test_no_file_at_all():
    with pytest.raises(CellSegError, match=r"no detections\.npz is given"):
        load_many([])
