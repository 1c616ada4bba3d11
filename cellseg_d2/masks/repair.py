"""Find and repair flaws in the shape of one cell's mask: holes, loose pieces, straight lines that no cell has."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from cellseg_d2.masks.components import EIGHT_NEIGHBOURS, filled
from cellseg_d2.masks.crop import MaskCrop

# Straight horizontal edges of at most this many pixels are taken for natural.
LONGEST_NATURAL_EDGE = 40


@dataclass(frozen=True)
class MaskShape:
    """What :func:`measure_shape` finds.

    Attributes:
        holes: number of enclosed pieces of background (4-connected).
        components: number of pieces of the mask (8-connected).
        straight_edge: length in pixels of the longest straight horizontal edge that is longer than
            :data:`LONGEST_NATURAL_EDGE`, 0 when there is none.
    """

    holes: int
    components: int
    straight_edge: int

    @property
    def is_broken(self) -> bool:
        """Whether the mask bears a line artefact, see :func:`longest_straight_edge`."""
        return self.straight_edge > 0


def measure_shape(crop: MaskCrop, height: int) -> MaskShape:
    """Look for flaws.

    Args:
        crop: a tight, non-empty mask.
        height: height of the image in pixels.
    """
    mask = crop.mask.view(np.uint8)
    # One pixel of background all around joins what lies outside of the cell into one piece.
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    components = cv2.connectedComponents(padded, connectivity=8)[0] - 1
    holes = cv2.connectedComponents(1 - padded, connectivity=4)[0] - 2
    edge = longest_straight_edge(crop, height) if mask.shape[1] > LONGEST_NATURAL_EDGE else 0
    return MaskShape(holes, components, edge if edge > LONGEST_NATURAL_EDGE else 0)


def longest_straight_edge(crop: MaskCrop, height: int) -> int:
    """Length of the longest straight horizontal edge of a mask, in pixels, that is not the image's own edge.

    An edge is an unbroken row of mask pixels with background above all of them, or below all of them. The masks of the
    competition come from polygons that were filled line by line; where that went wrong, a mask ends at a straight
    line, or is filled between the arms of a cell down to such a line. Of 42,325 public masks 352 astro, 3 cort and
    6 shsy5y have an edge of more than 40 px.

    Args:
        crop: a tight, non-empty mask.
        height: height of the image in pixels.
    """
    mask = crop.mask
    above = mask.copy()
    above[1:] &= ~mask[:-1]
    below = mask.copy()
    below[:-1] &= ~mask[1:]
    if crop.top == 0:
        above[0] = False
    if crop.top + len(mask) == height:
        below[-1] = False
    return max(_longest_run(above), _longest_run(below))


def _longest_run(mask: np.ndarray) -> int:
    """Length of the longest horizontal run of true pixels."""
    if not mask.any():
        return 0
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded.ravel())
    return int((np.flatnonzero(change == -1) - np.flatnonzero(change == 1)).max())


def repair_shape(crop: MaskCrop, shape: MaskShape) -> tuple[MaskCrop, dict[str, int]]:
    """Repair those flaws of a tight, non-empty mask that can be repaired from it alone.

    Holes are filled: annotators draw outlines, so a hole is an outline whose filling failed. Straight lines one pixel
    thin, longer than :data:`LONGEST_NATURAL_EDGE`, are erased, as long as something is left. Of several pieces the
    largest is kept. A straight edge stays: what lies behind it is not known.

    Returns:
        The repaired mask, tight, and the number of pixels that changed by ``"holes"``, ``"line artefact"`` and
        ``"several components"``, those that are not 0.
    """
    mask, changed = crop.mask, {}

    def replace(new: np.ndarray, name: str) -> np.ndarray:
        pixels = int(np.count_nonzero(new != mask))
        if pixels:
            changed[name] = pixels
        return new

    if shape.holes:
        mask = replace(filled(mask), "holes")
    if shape.is_broken:
        without = mask & ~_thin_lines(mask)
        if without.any():
            mask = replace(without, "line artefact")
    if shape.components > 1 or "line artefact" in changed:
        labels, count = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
        if count > 1:
            mask = replace(labels == np.bincount(labels.ravel())[1:].argmax() + 1, "several components")
    return (MaskCrop(crop.top, crop.left, mask).tight() if changed else crop), changed


def _thin_lines(mask: np.ndarray) -> np.ndarray:
    """Pixels of straight horizontal lines of one pixel's thickness, longer than :data:`LONGEST_NATURAL_EDGE`."""
    thin = mask.copy()
    thin[1:] &= ~mask[:-1]
    thin[:-1] &= ~mask[1:]
    return ndimage.binary_opening(thin, structure=np.ones((1, LONGEST_NATURAL_EDGE + 1), dtype=bool))
