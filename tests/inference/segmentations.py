"""Segmentations of a few cells, difficult ones among them, for tests of what is made of segmentations."""

from __future__ import annotations

import numpy as np

from cellseg_d2.detections.detections import Detections
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess.steps import Cells

CLASS_NAMES = ("round", "Ätz/a: b")
HEIGHT, WIDTH = 40, 50
PIXEL_SIZE = PixelSize(0.5, 0.25)


def difficult_crops() -> list[MaskCrop]:
    """Disjoint cells: a disc, one with two holes, pieces at corners, one pixel, and three at the image's borders."""
    y, x = np.mgrid[-6:7, -6:7]
    disc = x**2 + y**2 <= 36
    holes = np.ones((7, 9), bool)
    holes[2:5, 2:4] = holes[3, 6] = False
    return [
        MaskCrop(2, 3, disc),
        MaskCrop(20, 5, holes),
        MaskCrop(20, 30, np.eye(4, dtype=bool)[:, ::-1]),
        MaskCrop(30, 30, np.ones((1, 1), bool)),
        MaskCrop(0, WIDTH - 4, np.ones((5, 4), bool)),
        MaskCrop(HEIGHT - 1, 0, np.ones((1, 20), bool)),
        MaskCrop(10, WIDTH - 1, np.ones((9, 1), bool)),
    ]


def segmentation_of(crops, name="a", pixel_size=PIXEL_SIZE, height=HEIGHT, width=WIDTH) -> Segmentation:
    """A segmentation of crops whose classes alternate, as they were detected."""
    count = len(crops)
    image = np.random.default_rng(0).integers(0, 4096, (height, width)).astype(np.uint16)
    scores = np.linspace(0.95, 0.35, count).astype(np.float32)
    classes = np.arange(count) % len(CLASS_NAMES)
    boxes = np.array([crop.box for crop in crops], dtype=np.float32).reshape(-1, 4)
    detections = Detections(height, width, boxes, scores, classes, list(crops))
    return Segmentation(
        Cells(height, width, list(crops), scores, classes), CLASS_NAMES, image, pixel_size, name, detections
    )
