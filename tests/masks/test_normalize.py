"""Shapes are compared by their form alone: turning, mirroring and scaling a mask leaves its normalised picture."""

import cv2
import numpy as np
import pytest

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.normalize import MARGIN, Pose, draw_normalized, normalize_shape


def drop(length, angle, mirrored=False):
    """A drop with a thick end and a bump on one side, ``length`` pixels long."""
    y, x = np.mgrid[: 2 * int(length) + 1, : 2 * int(length) + 1].astype(float) - int(length)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    u, v = u / length, (-v if mirrored else v) / length
    body = (u**2 / 0.2 + v**2 / 0.03 <= 1) | ((u - 0.25) ** 2 + (v - 0.12) ** 2 <= 0.012)
    return MaskCrop.from_full(body).mask


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def overlap(first, second):
    """The IoU of two masks in their best relative position, by correlation."""
    shape = (first.shape[0] + second.shape[0], first.shape[1] + second.shape[1])
    product = np.fft.irfft2(np.fft.rfft2(first, shape) * np.fft.rfft2(second[::-1, ::-1], shape), shape)
    shared = product.max()
    return shared / (first.sum() + second.sum() - shared)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", np.linspace(-3, 3, 9))
def test_turned_and_mirrored_shapes_look_alike(angle, mirrored):
    reference, _ = normalize_shape(drop(60, 0.0))
    grid, pose = normalize_shape(drop(60, angle, mirrored))
    assert iou(grid >= 0.5, reference >= 0.5) > 0.95
    assert np.abs(grid - reference).mean() < 0.015
    # The direction of the long axis, which the bump turns a little; axes have no sense.
    turned = normalize_shape(drop(60, 0.0))[1].angle * (-1 if mirrored else 1) + angle
    assert np.isclose(np.cos(2 * (pose.angle - turned)), 1, atol=1e-3)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("length", [12, 25, 100, 400])
def test_scaled_shapes_look_alike(length, size):
    reference, _ = normalize_shape(drop(60, 0.4), size)
    grid, pose = normalize_shape(drop(length, 0.4), size)
    assert grid.shape == (size, size)
    assert grid.dtype == np.float32
    assert iou(grid >= 0.5, reference >= 0.5) > {12: 0.8, 25: 0.9}.get(length, 0.95)  # of few pixels
    assert pose.scale == pytest.approx(normalize_shape(drop(60, 0.4), size)[1].scale * length / 60, rel=0.08)


def test_the_picture_holds_the_whole_mask_and_fills_the_grid():
    for angle in np.linspace(0, 3, 7):
        for length in (5, 20, 333):
            mask = drop(length, angle)
            grid, pose = normalize_shape(mask)
            assert grid.sum() * pose.scale**2 == pytest.approx(mask.sum(), rel=0.01)
            assert grid[:, [0, -1]].max() < 0.01
            for column in (MARGIN, -MARGIN - 1):
                assert grid[:, column].max() > 0


def test_long_axis_lies_along_x_with_its_longer_tail_to_the_right():
    mask = np.zeros((40, 9), bool)
    mask[:, 4] = True
    mask[:12, 1:8] = True  # the body above; the tail goes down
    grid, pose = normalize_shape(mask)
    across = np.flatnonzero((grid >= 0.3).any(axis=0))
    assert across[-1] - across[0] > 24
    assert grid[:, :16].sum() > grid[:, 16:].sum()
    assert abs(np.cos(pose.angle)) < 1e-6


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.5])
@pytest.mark.parametrize("length", [15, 60])
def test_drawing_undoes_normalising(length, angle):
    mask = drop(length, angle)
    grid, pose = normalize_shape(mask, 48)
    assert overlap(draw_normalized(grid, pose), mask) > 0.95


def test_a_shape_is_drawn_in_any_pose():
    grid, pose = normalize_shape(drop(60, 0.0))
    drawn = draw_normalized(grid, Pose(2 * pose.scale, 1.0, (-1, 1)))
    assert drawn.sum() == pytest.approx(4 * drop(60, 0.0).sum(), rel=0.05)
    assert abs(normalize_shape(drawn)[1].angle - 1.0) < 0.05
    assert draw_normalized(np.zeros((32, 32)), pose).shape == (0, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (2, 2)])
def test_masks_without_extent_have_a_picture(shape):
    grid, pose = normalize_shape(np.ones(shape, bool))
    assert np.isfinite(grid).all()
    assert 0 < grid.max() <= 1
    assert pose.scale == pytest.approx(max(shape) / (32 - 2 * MARGIN))
    assert grid.sum() * pose.scale**2 == pytest.approx(np.prod(shape), rel=0.05)


def test_thin_lines_of_large_masks_are_not_lost():
    mask = np.zeros((401, 401), np.uint8)
    cv2.ellipse(mask, (200, 200), (60, 40), 0, 0, 360, 1, -1)
    mask[200] = 1
    grid, _ = normalize_shape(mask.astype(bool))
    ends = grid[:, [4, -5]]
    assert np.allclose(ends.sum(axis=0), 28 / 401, rtol=0.1)
