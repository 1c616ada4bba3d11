"""An image whose masks are known exactly, and what the tests measure on it after a transform."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from cellseg_d2.masks.overlaps import crops_from_labels
from cellseg_d2.visualization.overlays import draw_outlines

DARK, BRIGHT = 60, 200


@dataclass(frozen=True)
class Scene:
    """Bright discs with smooth edges on a dark ground.

    Attributes:
        image: uint8 ``(H, W)``.
        labels: uint16 ``(H, W)``, 0 for the ground.
        centers: ``(N, 2)`` xy, pixel centres at +0.5.
        boxes: float32 ``(N, 4)`` XYXY.
    """

    image: np.ndarray
    labels: np.ndarray
    centers: np.ndarray
    boxes: np.ndarray


def disc_scene(
    height: int = 240, width: int = 320, spacing: int = 48, radii: tuple[float, float] = (10, 18), jitter: float = 4
) -> Scene:
    """Discs on a loose grid, none at the border."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width] + 0.5
    image, labels, centers, sizes = np.full((height, width), float(DARK)), np.zeros((height, width), np.uint16), [], []
    for top in range(spacing // 2 + 6, height - spacing // 2 + 1, spacing):
        for left in range(spacing // 2 + 6, width - spacing // 2 + 1, spacing):
            center = np.array([left, top]) + generator.uniform(-jitter, jitter, 2)
            radius = generator.uniform(*radii)
            distance = np.hypot(x - center[0], y - center[1])
            image += (BRIGHT - DARK) * np.clip(radius - distance + 0.5, 0, 1)
            labels[distance <= radius] = len(centers) + 1
            centers.append(center)
            sizes.append(radius)
    centers, sizes = np.array(centers), np.array(sizes)[:, None]
    boxes = np.concatenate([centers - sizes, centers + sizes], axis=1).astype(np.float32)
    return Scene(np.rint(image).astype(np.uint8), labels, centers, boxes)


def assert_agreement(image: np.ndarray, labels: np.ndarray, steps: int = 1) -> None:
    """The masks are the bright pixels: they differ at most along the edge, and evenly to both sides.

    Args:
        image, labels: after the transforms.
        steps: how many of them interpolate.
    """
    bright, masked = image > (DARK + BRIGHT) / 2, labels > 0
    assert masked.any()
    differ = bright ^ masked
    masked_u8, around = masked.astype(np.uint8), np.ones((2 * steps + 1, 2 * steps + 1))
    edge = cv2.dilate(masked_u8, around) - cv2.erode(masked_u8, around)
    assert not differ[edge == 0].any()
    # Near a convex edge the nearest pixel and the interpolated level decide differently now and then.
    assert differ.sum() < 0.14 * edge.sum()
    assert abs(int(bright.sum()) - int(masked.sum())) < 0.025 * edge.sum()


def centroids(image: np.ndarray, labels: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each cell away from the border: its centre of gravity xy in the mask, and in the image."""
    result = {}
    for label, window in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if window is None:
            continue
        (top, bottom), (left, right) = ((part.start - 2, part.stop + 2) for part in window)
        if min(top, left) < 0 or bottom > labels.shape[0] or right > labels.shape[1]:
            continue
        window = slice(top, bottom), slice(left, right)
        if (labels[window] > 0).sum() != (labels[window] == label).sum():
            continue  # another cell is near
        weights = image[window].astype(float) - DARK
        result[label] = tuple(
            np.array(ndimage.center_of_mass(part))[::-1] + np.array([left + 0.5, top + 0.5])
            for part in (labels[window] == label, weights)
        )
    return result


def assert_picture(image: np.ndarray, labels: np.ndarray, path) -> None:
    """Draw the cells' outlines, save the picture, and see that they lie where the picture has its edges."""
    crops = crops_from_labels(labels.astype(np.int32))
    red = (255, 0, 0)
    picture = draw_outlines(image, crops, red, thickness=1, upscale=1)
    cv2.imwrite(str(path), picture[..., ::-1])
    drawn = (picture == red).all(axis=2)
    drawn[[0, -1]] = drawn[:, [0, -1]] = False  # where a cell is cut there is no edge to see
    assert drawn.sum() > 100
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1)
    steepness = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    near = cv2.dilate(drawn.astype(np.uint8), np.ones((9, 9))) > 0
    near[:4], near[-4:], near[:, :4], near[:, -4:] = True, True, True, True
    assert np.median(steepness[drawn]) > 10 * np.mean(steepness[~near])
