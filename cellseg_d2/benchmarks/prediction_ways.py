"""Ways from the detections of one image to run-lengths: this project's, stock Detectron2's, and loops over pixels.

Every way begins with the same :class:`Detections` and gives one :class:`Outcome`. Masks of stock Detectron2 are pasted
by its own ``paste_masks_in_image``, which makes a full-size mask for each detection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.layers import paste_masks_in_image
from pycocotools import mask as coco_mask

from cellseg_d2.detections.detections import Detections
from cellseg_d2.masks.rle import kaggle_from_labels
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess

OURS = "this project"
STOCK = "Detectron2, overlaps left"
STOCK_DISJOINT = "Detectron2, overlaps removed"
LOOPS = "pairs and pixels in loops"
# Nothing is dropped but masks that lost all their pixels, so that all ways do the same.
PARAMS = PostprocessParams(score_thresholds=(0.0,), min_areas=(1,))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a way made of an image.

    Attributes:
        seconds: wall clock and processor time ``(2,)`` that it took, or would have taken for all detections.
        masks: masks of the treated detections, best score first: the competition's texts or COCO RLEs. Some may be
            empty.
        treated: number of detections whose masks were made to the end.
    """

    seconds: np.ndarray
    masks: list[str] | list[dict]
    treated: int


def ways(full: bool = False, few: int = 4) -> dict[str, Callable[[Detections], Outcome]]:
    """All ways by name.

    Args:
        full: whether :data:`LOOPS` treats all detections, which takes minutes.
        few: how many it treats otherwise.
    """
    return {
        OURS: by_label_image,
        STOCK: by_full_masks,
        STOCK_DISJOINT: by_disjoint_full_masks,
        LOOPS: lambda detections: by_loops(detections, None if full else few),
    }


def by_label_image(detections: Detections) -> Outcome:
    """This project's way, as ``cellseg-d2 infer`` goes it: to the competition's texts."""
    start = _clocks()
    cells = postprocess(detections, PARAMS)
    texts = kaggle_from_labels(cells.label_image(), len(cells))
    return Outcome(_clocks() - start, texts, len(detections))


def by_full_masks(detections: Detections) -> Outcome:
    """Detectron2's evaluation: paste all masks, then encode one after another. They overlap: nothing to submit yet."""
    start = _clocks()
    masks = _pasted(detections)
    rles = [_encode(mask) for mask in masks]
    return Outcome(_clocks() - start, rles, len(detections))


def by_disjoint_full_masks(detections: Detections) -> Outcome:
    """:func:`by_full_masks`, each mask without what better ones have taken."""
    start = _clocks()
    masks = _pasted(detections)
    taken = np.zeros(masks.shape[1:], dtype=bool)
    rles = []
    for mask in masks:
        mask &= ~taken
        taken |= mask
        rles.append(_encode(mask))
    return Outcome(_clocks() - start, rles, len(detections))


def by_loops(detections: Detections, few: int | None = None) -> Outcome:
    """Full-size masks, every pair of them compared, and runs found by looking at one pixel after another.

    Args:
        detections: detections of one image.
        few: treat only so many, spread evenly over the scores, and tell from these how long all would take. Their
            masks are what they are when all are treated.
    """
    start = _clocks()
    masks = _pasted(detections)
    pasted = _clocks() - start
    number = len(masks)
    chosen = range(number) if few is None else np.unique(np.linspace(0, number - 1, few).round().astype(int)).tolist()

    start = _clocks()
    for worse in chosen:
        for better in range(worse):
            both = masks[worse] & masks[better]
            if both.any():
                masks[worse] = masks[worse] & ~both
    compared = _clocks() - start

    start = _clocks()
    texts = [_text_by_pixels(masks[index]) for index in chosen]
    encoded = _clocks() - start

    pairs = number * (number - 1) / 2 / max(sum(chosen), 1)  # a mask is compared with the better ones, as many as index
    seconds = pasted + compared * pairs + encoded * number / max(len(chosen), 1)
    return Outcome(seconds, texts, len(chosen))


def _clocks() -> np.ndarray:
    """Wall clock and processor time in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def _pasted(detections: Detections) -> np.ndarray:
    """Full-size masks, bool ``(N, H, W)``, best score first."""
    order = np.argsort(-detections.scores, kind="stable")
    masks, boxes = torch.from_numpy(detections.masks[order]), torch.from_numpy(detections.boxes[order])
    return paste_masks_in_image(masks, boxes, (detections.height, detections.width)).numpy()


def _encode(mask: np.ndarray) -> dict:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def _text_by_pixels(mask: np.ndarray) -> str:
    numbers, length = [], 0
    for position, pixel in enumerate(mask.flatten()):
        if pixel:
            if length == 0:
                numbers.append(str(position + 1))
            length += 1
        elif length:
            numbers.append(str(length))
            length = 0
    if length:
        numbers.append(str(length))
    return " ".join(numbers)
