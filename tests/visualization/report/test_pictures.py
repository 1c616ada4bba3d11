"""Outlines as SVG paths, which filled must give the masks back."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.report.pictures import image_data_uri, outline_path

SHAPE = (24, 30)


def contours(path):
    """The closed lines of a path, each ``(n, 2)``: absolute start, then relative steps."""
    for start, steps in re.findall(r"M([^lzM]*)(?:l([^z]*))?z", path):
        points = [np.array(re.findall(r"-?\d+", text), int).reshape(-1, 2) for text in (start, steps)]
        yield np.cumsum(np.concatenate(points), axis=0)


def filled(path):
    """What a browser fills with the rule ``nonzero``, with the line itself, bool."""
    winding, line = np.zeros(SHAPE, int), np.zeros(SHAPE, np.uint8)
    for points in contours(path):
        inside = cv2.fillPoly(np.zeros(SHAPE, np.uint8), [points], 1).astype(int)
        x, y = points.T
        winding += inside * int(np.sign(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)))
        cv2.polylines(line, [points], True, 1)
    return (winding != 0) | (line > 0)


@given(arrays(bool, SHAPE))
def test_filled_paths_are_the_masks(noise):
    # Blobs of at least 3 × 3 pixels; noise of single pixels has outlines that touch themselves.
    opened = cv2.morphologyEx(noise.astype(np.uint8) * 255, cv2.MORPH_CLOSE, np.ones((3, 3)))
    mask = cv2.morphologyEx(opened, cv2.MORPH_OPEN, np.ones((3, 3))) > 0
    full = filled(outline_path([MaskCrop.from_full(mask)], tolerance=0))
    assert not (mask & ~full).any()
    # OpenCV runs around a hole on the mask's own pixels, so the hole stays but for what the line covers.
    assert not (full & ~mask & (cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) == 0)).any()


def test_a_ring_keeps_its_hole():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    away = np.hypot(y - 12, x - 14)
    ring = MaskCrop.from_full((away < 10) & (away > 5))
    path = outline_path([ring])
    assert path.count("M") == 2
    full = filled(path)
    assert full[12, 5] or full[12, 6]
    assert not full[12, 14]


@given(st.integers(0, 9), st.integers(0, 9))
def test_single_pixels_and_empty_masks(top, left):
    assert outline_path([MaskCrop(top, left, np.ones((1, 1), bool))]) == f"M{left} {top}z"
    assert outline_path([MaskCrop(0, 0, np.zeros((0, 0), bool))]) == ""
    assert outline_path([]) == ""


def test_a_tolerance_shortens_the_path():
    y, x = np.mgrid[:200, :200]
    disc = MaskCrop.from_full(np.hypot(y - 100, x - 100) < 80)
    exact, short = (outline_path([disc], tolerance) for tolerance in (0, 0.7))
    assert len(short) < len(exact) / 2
    (points,) = contours(short)
    radii = np.hypot(points[:, 0] - 100, points[:, 1] - 100)
    assert np.abs(radii - 80).max() < 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_becomes_a_data_uri(dtype):
    assert image_data_uri(np.arange(600).reshape(20, 30).astype(dtype), 900).startswith("data:image/webp;base64,")
