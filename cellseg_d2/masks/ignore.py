"""Regions of an image in which nobody annotated: what is there is neither cell nor background.

Training learns nothing from them, and scores leave out what is predicted there. In COCO JSON they are annotations
marked ``iscrowd``, and what counts as being in one is as in COCO's own measure (Lin et al., ECCV 2014): the share of a
detection's own area, not its IoU with the region.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.masks.crop import MaskCrop, united

# A detection of which a larger share is in the region is no longer judged. No detection that matches a cell outside of
# the region, at an IoU of 0.5 or more, can be that far in it.
LARGEST_SHARE = 0.5


def without_cells(ignore: np.ndarray, cells: Sequence[MaskCrop]) -> np.ndarray:
    """A region, bool ``(H, W)``, without the pixels of cells, which are known."""
    result = ignore.copy()
    for crop in cells:
        result[crop.slices] &= ~crop.mask
    return result


def outside_of(cells: Sequence[MaskCrop], height: int, width: int, ring: int = 0) -> MaskCrop | None:
    """The region to ignore of an image in which only some cells are annotated: all but these.

    Args:
        cells: that are annotated.
        height, width: size of the image in pixels.
        ring: so many pixels around each cell are not ignored: they count as background.

    Returns:
        None where the cells leave nothing.
    """
    known = ~without_cells(np.ones((height, width), dtype=bool), cells)
    if ring > 0 and known.any():
        known = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= ring
    return united([MaskCrop.from_full(~known)])


def judged(predicted: Sequence[dict], ignore: dict | None) -> list[int]:
    """Indices of the predicted cells that a score may judge: those not mostly in the region to ignore.

    Args:
        predicted: ``P`` compressed COCO RLEs.
        ignore: the region, one too; None judges all.
    """
    if ignore is None or not predicted:
        return list(range(len(predicted)))
    shares = coco_mask.iou(list(predicted), [ignore], [1])[:, 0]  # of a crowd: intersection over the detection's area
    return np.flatnonzero(shares <= LARGEST_SHARE).tolist()


def box_shares(ignore: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The share of each box that is in the region.

    Args:
        ignore: bool ``(H, W)``.
        boxes: ``(N, 4)`` as x0, y0, x1, y1 in pixels, of any size and place; rounded to whole pixels.

    Returns:
        float64 ``(N,)`` of the part of each box inside the image; 0 for one that has none.
    """
    height, width = ignore.shape
    sums = cv2.integral(ignore.astype(np.uint8), sdepth=cv2.CV_64F)
    x0, y0, x1, y1 = np.clip(np.rint(boxes), 0, [width, height, width, height]).astype(np.int64).T
    areas = (x1 - x0) * (y1 - y0)
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.where(areas > 0, inside / np.maximum(areas, 1), 0.0)
