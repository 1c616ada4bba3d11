"""Paste cells of one image into another, without a visible edge."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import label_image

FEATHER = 2  # pixels around the mask over which a pasted cell fades out
MARGIN = 8  # pixels around the mask in which the level of the surroundings is measured
LEAST_SURROUNDINGS = 20  # pixels
TRIES = 40  # places per cell
BEYOND = -1  # label of what is not in the image


def paste_cells(
    image: np.ndarray,
    cells: Sequence[MaskCrop],
    source_image: np.ndarray,
    source_cells: Sequence[MaskCrop],
    count: int,
    rng: np.random.Generator,
    max_overlap: float = 0.2,
    scale: tuple[float, float] = (1.0, 1.0),
) -> tuple[np.ndarray, list[MaskCrop], np.ndarray]:
    """Paste up to ``count`` random cells of another image (Ghiasi et al. 2021) at random places.

    All are resized by a random factor; each is turned or mirrored at random, brought to the level of its new
    surroundings (the difference of the two medians around the mask, cells left out), and faded out over two pixels
    around its mask. Cells at the border of the source image, which are cut off, are never taken.

    Args:
        image: uint8 ``(H, W)``; it is not changed.
        cells: its cells.
        source_image: uint8 ``(H', W')``.
        source_cells: its cells.
        count: how many to paste. There may be fewer if no place is found for some.
        rng: all draws come from it.
        max_overlap: the largest share of a pasted cell that may lie on others, and the largest share of another cell
            that may get hidden, 0 … 1.
        scale: range of the factor by which all are resized, drawn evenly on a logarithmic scale.

    Returns:
        The new image, uint8 ``(H, W)``; the pasted cells, which hide whatever is below them (see
        :func:`visible_parts`); and their indices in ``source_cells``, int64 ``(P,)``.
    """
    height, width = image.shape
    canvas = cv2.copyMakeBorder(image, *[MARGIN] * 4, cv2.BORDER_REFLECT_101).astype(np.float32)
    labels = np.pad(label_image(cells, height, width), MARGIN, constant_values=BEYOND)
    areas = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    if scale != (1.0, 1.0):
        source_image, source_cells = _resized(source_image, source_cells, float(np.exp(rng.uniform(*np.log(scale)))))
    cutter = _Cutter(source_image, source_cells)
    placed: list[MaskCrop] = []
    indices: list[int] = []
    for index in rng.permutation(len(source_cells)).tolist():
        if len(placed) >= count:
            break
        cut = cutter.cut(index, rng)
        if cut is None:
            continue
        patch, mask, alpha, around, level = cut
        place = _find_place(mask, labels, areas, rng, max_overlap)
        if place is None:
            continue
        top, left = place
        # The canvas begins MARGIN pixels before the image, and so does the patch before its mask.
        window = slice(top, top + mask.shape[0]), slice(left, left + mask.shape[1])
        free = around & (labels[window] == 0)
        if np.count_nonzero(free) < LEAST_SURROUNDINGS:
            continue
        below = canvas[window]
        below += alpha * (patch + (np.median(below[free]) - level) - below)
        label = len(cells) + len(placed) + 1
        labels[window][mask] = label
        areas[label] = np.count_nonzero(mask)
        placed.append(MaskCrop(top - MARGIN, left - MARGIN, mask).tight())
        indices.append(index)
    inner = canvas[MARGIN : MARGIN + height, MARGIN : MARGIN + width]
    return np.clip(np.rint(inner), 0, 255).astype(np.uint8), placed, np.array(indices, dtype=np.int64)


def visible_parts(cells: Sequence[MaskCrop], pasted: Sequence[MaskCrop], height: int, width: int) -> list[MaskCrop]:
    """The cells without what the pasted ones hide, in the same order; a cell may become empty."""
    hidden = label_image(pasted, height, width) > 0
    return [MaskCrop(cell.top, cell.left, cell.mask & ~hidden[cell.slices]).tight() for cell in cells]


def _resized(image: np.ndarray, cells: Sequence[MaskCrop], factor: float) -> tuple[np.ndarray, list[MaskCrop]]:
    """An image and its cells, ``factor`` times as large."""
    sizes = [max(1, round(side * factor)) for side in image.shape]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    # The row and the column that each new one is taken from, so that only the crops are looked at, not whole images.
    rows, columns = (
        cv2.resize(np.arange(old, dtype=np.float32)[None], (new, 1), interpolation=cv2.INTER_NEAREST)[0].astype(int)
        for old, new in zip(image.shape, sizes, strict=True)
    )

    def resized(cell: MaskCrop) -> MaskCrop:
        x0, y0, x1, y1 = cell.box
        (top, bottom), (left, right) = np.searchsorted(rows, (y0, y1)), np.searchsorted(columns, (x0, x1))
        mask = cell.mask[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        return MaskCrop(int(top), int(left), mask).tight()

    return cv2.resize(image, sizes[::-1], interpolation=how), list(map(resized, cells))


class _Cutter:
    """Cuts cells with their surroundings out of an image."""

    def __init__(self, image: np.ndarray, cells: Sequence[MaskCrop]):
        self.size = image.shape
        self.image = cv2.copyMakeBorder(image, *[MARGIN] * 4, cv2.BORDER_REFLECT_101).astype(np.float32)
        self.labels = np.pad(label_image(cells, *image.shape), MARGIN, constant_values=BEYOND)
        self.cells = cells

    def cut(self, index: int, rng: np.random.Generator):
        """A cell with ``MARGIN`` pixels around it, turned and mirrored at random; None for one that is unfit.

        Returns:
            ``patch`` float32, ``mask`` bool, ``alpha`` float32 (1 in the cell), ``around`` bool (where the level is
            measured), all ``(h, w)``; and the level of the cell's surroundings.
        """
        cell = self.cells[index].tight()
        x0, y0, x1, y1 = cell.box
        if x1 == x0 or x0 <= 0 or y0 <= 0 or x1 >= self.size[1] or y1 >= self.size[0]:
            return None
        window = slice(y0, y1 + 2 * MARGIN), slice(x0, x1 + 2 * MARGIN)
        mask = np.pad(cell.mask, MARGIN)
        distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        alpha = np.clip(1 - distance / (FEATHER + 1), 0, 1)
        labels = self.labels[window]
        alpha[(labels != 0) & ~mask] = 0  # do not bring parts of the neighbours along
        around = (distance > FEATHER) & (distance <= MARGIN)
        free = around & (labels == 0)
        if np.count_nonzero(free) < LEAST_SURROUNDINGS:
            return None
        patch = self.image[window]
        level = float(np.median(patch[free]))
        turns, mirror = int(rng.integers(4)), 1 if rng.integers(2) else -1
        parts = [np.rot90(part, turns)[:, ::mirror] for part in (patch, mask, alpha, around)]
        return *parts, level


def _find_place(mask: np.ndarray, labels: np.ndarray, areas: dict, rng: np.random.Generator, max_overlap: float):
    """Where the padded mask goes on the padded labels ``(top, left)``, or None."""
    rows, columns = (have - need for have, need in zip(labels.shape, mask.shape, strict=True))
    if rows < 0 or columns < 0:
        return None
    area = np.count_nonzero(mask)
    for _ in range(TRIES):
        top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
        below = labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask]
        below = below[below > 0]
        if len(below) > max_overlap * area:
            continue
        covered = zip(*np.unique(below, return_counts=True), strict=True)
        if all(hidden <= max_overlap * areas[label] for label, hidden in covered):
            return top, left
    return None
