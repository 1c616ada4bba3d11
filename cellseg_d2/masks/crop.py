"""One cell's mask as a small crop with its place in the image.

A cell covers some hundred pixels of an image of hundreds of thousands, so masks are kept as crops: everything here
costs in proportion to the cell and not to the image. Pixel ``(y, x)`` of the image is
``crop.mask[y - crop.top, x - crop.left]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cellseg_d2.masks.rle import clean_runs, decode_coco, encode_coco, format_kaggle_rle, parse_kaggle_rle


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """A binary mask inside a rectangle of the image; everything outside the rectangle is background.

    Attributes:
        top, left: row and column of the crop's first pixel, in pixels.
        mask: bool ``(h, w)``.

    Example:
        >>> crop = MaskCrop.from_full(np.eye(5, dtype=bool)[:, ::-1])
        >>> crop.area, crop.box
        (5, (0, 0, 5, 5))
    """

    top: int
    left: int
    mask: np.ndarray

    @classmethod
    def from_full(cls, mask: np.ndarray) -> MaskCrop:
        """The tight crop of a full-size mask ``(H, W)`` (bool or 0/1)."""
        return cls(0, 0, np.asarray(mask, dtype=bool)).tight()

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The crop's rectangle ``(x0, y0, x1, y1)`` in pixels, the end exclusive."""
        h, w = self.mask.shape
        return self.left, self.top, self.left + w, self.top + h

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of the crop in the full image."""
        h, w = self.mask.shape
        return slice(self.top, self.top + h), slice(self.left, self.left + w)

    def is_cut(self, height: int, width: int) -> bool:
        """Whether a tight crop reaches the border of an image of ``height`` × ``width`` pixels, which may cut it."""
        x0, y0, x1, y1 = self.box
        return x0 == 0 or y0 == 0 or x1 == width or y1 == height

    def tight(self) -> MaskCrop:
        """The same mask with a crop as small as possible; an empty mask becomes a 0 × 0 crop."""
        x, y, w, h = cv2.boundingRect(self.mask.view(np.uint8)) if self.mask.size else (0, 0, 0, 0)
        if w == 0:
            return MaskCrop(0, 0, np.zeros((0, 0), dtype=bool))
        if (h, w) == self.mask.shape:
            return self
        return MaskCrop(self.top + y, self.left + x, self.mask[y : y + h, x : x + w])

    def to_full(self, height: int, width: int) -> np.ndarray:
        """The full-size mask, bool ``(height, width)``."""
        full = np.zeros((height, width), dtype=bool)
        full[self.slices] = self.mask
        return full


def runs_to_crop(runs: np.ndarray, width: int) -> MaskCrop:
    """The tight crop of **row-major** runs ``(R, 2)``; for column-major runs see :func:`coco_to_crop`.

    Args:
        runs: canonical runs (see :func:`cellseg_d2.masks.rle.clean_runs`).
        width: width of the image in pixels. A run may continue over the end of a line.
    """
    if len(runs) == 0:
        return MaskCrop(0, 0, np.zeros((0, 0), dtype=bool))
    starts, ends = runs[:, 0], runs[:, 0] + runs[:, 1]
    first, last = starts // width, (ends - 1) // width
    if (last > first).any():  # cut the runs that go over the end of a line
        pieces = last - first + 1
        lines = np.repeat(first, pieces) + (np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces))
        starts = np.maximum(np.repeat(starts, pieces), lines * width)
        ends = np.minimum(np.repeat(ends, pieces), (lines + 1) * width)
    else:
        lines = first
    x0, x1 = starts - lines * width, ends - lines * width
    top, left, bottom, right = lines[0], x0.min(), lines[-1] + 1, x1.max()
    edges = np.zeros((bottom - top, right - left + 1), dtype=np.int8)
    edges[lines - top, x0 - left] = 1
    edges[lines - top, x1 - left] -= 1
    return MaskCrop(int(top), int(left), np.cumsum(edges, axis=1, dtype=np.int8)[:, :-1].astype(bool))


def crop_to_runs(crop: MaskCrop, width: int) -> np.ndarray:
    """Canonical **row-major** runs ``(R, 2)`` of a crop in an image ``width`` pixels wide.

    Raises:
        ValueError: a pixel lies outside these columns or above the image: its run would be that of another pixel.
    """
    h, w = crop.mask.shape
    edges = np.zeros((h, w + 2), dtype=np.int8)
    edges[:, 1:-1] = crop.mask
    change = np.diff(edges, axis=1)
    lines, x0 = np.nonzero(change == 1)
    x1 = np.nonzero(change == -1)[1]
    if len(x0) and (crop.left + x0.min() < 0 or crop.left + x1.max() > width or crop.top + lines[0] < 0):
        raise ValueError(f"a mask reaches outside its image, whose lines have {width} pixels: see overlaps.clip_crop")
    starts = (crop.top + lines) * width + crop.left + x0
    ends = starts + (x1 - x0)
    if w == width and h > 1:  # only then can a run meet the next line's
        return clean_runs(np.stack([starts, ends - starts], axis=1), crop.top + h, width)
    return np.stack([starts, ends - starts], axis=1).astype(np.int64)


def _transposed(crop: MaskCrop) -> MaskCrop:
    return MaskCrop(crop.left, crop.top, crop.mask.T)


def crop_to_coco(crop: MaskCrop, height: int, width: int) -> dict:
    """Compressed COCO RLE ``{"size", "counts"}`` of a crop in an image of ``height`` × ``width`` pixels."""
    return encode_coco(crop_to_runs(_transposed(crop), height), height, width)


def coco_to_crop(rle: dict) -> MaskCrop:
    """The tight crop of a COCO RLE, without building the full-size mask."""
    return _transposed(runs_to_crop(decode_coco(rle), rle["size"][0]))


def crop_to_kaggle(crop: MaskCrop, width: int) -> str:
    """The competition's text of a crop in an image ``width`` pixels wide."""
    return format_kaggle_rle(crop_to_runs(crop, width))


def kaggle_to_crop(text: str, height: int, width: int) -> MaskCrop:
    """The tight crop of the competition's text; parts outside the image are cut off.

    Raises:
        cellseg_d2.masks.rle.RLEError: the text is not a list of pairs.
    """
    return runs_to_crop(clean_runs(parse_kaggle_rle(text), height, width), width)


def pixel_positions(crops: Sequence[MaskCrop], width: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of masks inside an image ``width`` pixels wide.

    Returns:
        The row-major position ``y * width + x`` of each, int64 ``(P,)``, and the index of its mask, int64 ``(P,)``,
        ascending; a pixel of several masks is there several times.
    """
    positions = [np.zeros(0, dtype=np.int64)]
    for crop in crops:
        y, x = np.nonzero(crop.mask)
        positions.append((y + crop.top) * width + x + crop.left)
    return np.concatenate(positions), np.repeat(np.arange(len(crops)), [len(own) for own in positions[1:]])


def united(regions: Iterable[MaskCrop | None]) -> MaskCrop | None:
    """Several masks of one image as one, tight; None where they have no pixel."""
    crops = [crop.tight() for crop in regions if crop is not None and crop.area]
    if not crops:
        return None
    x0, y0, x1, y1 = np.array([crop.box for crop in crops]).T
    left, top, right, bottom = x0.min(), y0.min(), x1.max(), y1.max()
    whole = np.zeros((bottom - top, right - left), dtype=bool)
    for crop in crops:
        rows, columns = crop.slices
        whole[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] |= crop.mask
    return MaskCrop(int(top), int(left), whole)
