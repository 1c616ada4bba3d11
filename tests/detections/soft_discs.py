"""Detections of discs as a Mask R-CNN would give them, and a detector that needs no network."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cellseg_d2.detections.detections import Detections


def soft_disc(center_x, center_y, radius, box, size=28, sharpness=2.0):
    """Probability of a disc on a ``size`` × ``size`` grid over ``box``: ½ at its edge, steep in pixels."""
    x0, y0, x1, y1 = box
    xs = x0 + (np.arange(size) + 0.5) / size * (x1 - x0)
    ys = y0 + (np.arange(size) + 0.5) / size * (y1 - y0)
    distance = np.hypot(ys[:, None] - center_y, xs[None] - center_x)
    return 1 / (1 + np.exp(np.clip(sharpness * (distance - radius), -30, 30)))


def detections_of(discs, scores, height, width, classes=None, size=28, margin=1.0):
    """Detections of ``discs``, rows of ``(center_x, center_y, radius)``."""
    discs = np.asarray(discs, dtype=float).reshape(-1, 3)
    x, y, r = discs.T
    boxes = np.stack([x - r - margin, y - r - margin, x + r + margin, y + r + margin], axis=1)
    masks = [soft_disc(*disc, box, size) for disc, box in zip(discs, boxes, strict=True)]
    return Detections(
        height,
        width,
        boxes.astype(np.float32),
        np.asarray(scores, dtype=np.float32),
        np.zeros(len(discs), np.int64) if classes is None else np.asarray(classes, dtype=np.int64),
        np.array(masks, dtype=np.float32).reshape(-1, size, size),
    )


def scattered_discs(rng, count, height, width, radius=(5.0, 10.0), gap=1.0):
    """``(count, 3)`` discs that keep ``gap`` pixels apart."""
    discs = []
    while len(discs) < count:
        r = rng.uniform(*radius)
        x, y = rng.uniform(r + 1, width - r - 1), rng.uniform(r + 1, height - r - 1)
        if all(np.hypot(x - a, y - b) > r + c + gap for a, b, c in discs):
            discs.append((x, y, r))
    return np.array(discs)


def threshold_detector(image, scale=1.0, size=14):
    """Connected regions brighter than 100 as detections: a detector with a bias in position, mask and score.

    It sees boxes one pixel too far right, masks that fade downward, is surest on the left, and overlooks what lies in
    the lower right of the image.
    """
    height, width = image.shape
    labels, count = ndimage.label(image > 100)
    boxes, scores, masks = [], [], []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels, count), start=1):
        if rows.start > 0.7 * height and columns.start > 0.7 * width:
            continue
        crop = labels[rows, columns] == number
        steps = [(np.arange(size) + 0.5) * side / size - 0.5 for side in crop.shape]
        grid = ndimage.map_coordinates(crop.astype(float), np.meshgrid(*steps, indexing="ij"), order=1, mode="nearest")
        boxes.append((columns.start + 1, rows.start, columns.stop + 1, rows.stop))
        masks.append(grid * np.linspace(1, 0.6, size)[:, None])
        scores.append(0.95 - 0.3 * columns.start / width)
    return Detections(
        height,
        width,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.zeros(len(scores), np.int64),
        np.array(masks, dtype=np.float32).reshape(-1, size, size),
    )
