"""An image far larger than the network's window: whether each cell is found once, and in how much memory and time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from cellseg_d2.benchmarks.memory import resident_peak
from cellseg_d2.detections.detections import Detections
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.processes import in_process
from cellseg_d2.tiling.grid import tile_grid

TILE, OVERLAP = 1024, 128  # as of the models
_PITCH, _JITTER, _RADII = 36, 6.0, (5.0, 11.0)  # pixels; neighbours never touch
_BLOCK = 512  # side of the TIFF's own tiles
_GRID = 28  # side of the soft masks, as the network's


@dataclass(frozen=True)
class MosaicCost:
    """What an image of drawn discs costs, and what is found in it.

    Attributes:
        side: side of the image in pixels.
        windows: in which it is looked at.
        discs, on_seams: number of discs, and of those that the middle between two windows runs through.
        found: discs with a cell whose IoU is above 0.5.
        extra: cells beyond the first of a disc, or of none.
        iou, iou_on_seams: mean over the discs, 0 … 1.
        seconds: from the file to the cells.
        peak: bytes of memory above that of the process with all libraries loaded.
    """

    side: int
    windows: int
    discs: int
    on_seams: int
    found: int
    extra: int
    iou: float
    iou_on_seams: float
    seconds: float
    peak: int


def measure_mosaic(side: int, seed: int = 0) -> MosaicCost:
    """Write a tiled TIFF of drawn discs, segment it window by window in a process of its own, and compare.

    The discs are found by a threshold, and given as boxes with soft masks as a network would: what is measured is all
    that surrounds the network, and the truth is exact.

    Args:
        side: side of the image in pixels, at least 36.
        seed: seed of the discs.
    """
    with tempfile.TemporaryDirectory(prefix="mosaic") as folder:
        path = Path(folder) / "mosaic.tif"
        write_mosaic(path, disc_field(side, seed), side, seed)
        return in_process(_segment, path, side, seed)


def disc_field(side: int, seed: int = 0) -> np.ndarray:
    """Discs that fill a square without touching, float64 ``(N, 3)``: centre x, centre y and radius in pixels."""
    rng = np.random.default_rng(seed)
    count = side // _PITCH
    y, x = (np.mgrid[:count, :count].reshape(2, -1) + 0.5) * _PITCH
    x, y = (places + rng.uniform(-_JITTER, _JITTER, places.shape) for places in (x, y))
    return np.stack([x, y, rng.uniform(*_RADII, x.shape)], axis=1)


def write_mosaic(path: Path, discs: np.ndarray, side: int, seed: int = 0) -> None:
    """Write the discs, bright on a noisy ground, as a tiled TIFF, tile by tile."""
    options = {"shape": (side, side), "dtype": np.uint8, "tile": (_BLOCK, _BLOCK), "compression": "zlib"}
    tifffile.imwrite(path, _blocks(discs, side, seed), **options)


def _blocks(discs: np.ndarray, side: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([seed, 1])
    reach = _PITCH  # around the block, further than any disc whose centre is within half of it
    for top in range(0, side, _BLOCK):
        row = discs[np.abs(discs[:, 1] - top - _BLOCK / 2) < (_BLOCK + reach) / 2]
        for left in range(0, side, _BLOCK):
            block = rng.integers(90, 110, (_BLOCK + 2 * reach, _BLOCK + 2 * reach), dtype=np.uint8)
            for x, y, radius in row[np.abs(row[:, 0] - left - _BLOCK / 2) < (_BLOCK + reach) / 2]:
                disc = draw_disc(x - left + reach, y - top + reach, radius)
                block[disc.slices][disc.mask] = 200
            yield block[reach:-reach, reach:-reach]


def draw_disc(x: float, y: float, radius: float) -> MaskCrop:
    """The pixels whose centres are in the disc."""
    top, left = int(np.floor(y - radius)), int(np.floor(x - radius))
    size = int(np.ceil(2 * radius)) + 2
    rows, columns = np.ogrid[top : top + size, left : left + size]
    return MaskCrop(top, left, (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2)


class _Threshold(Segmenter):
    """Finds connected bright pixels as a network would give them: a box, and probabilities on a grid over it."""

    tile = TILE

    def __init__(self):
        self.params = PostprocessParams(vote=False)
        self.class_names = ["disc"]

    def detect_views(self, image: np.ndarray, scale: float = 1.0) -> tuple[list[Detections], list[float]]:
        labels, count = ndimage.label(image > 150)
        boxes, masks = np.zeros((count, 4), np.float32), np.zeros((count, _GRID, _GRID), np.float32)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels)):
            boxes[number] = columns.start, rows.start, columns.stop, rows.stop
            region = labels[rows, columns] == number + 1
            steps = [(np.arange(_GRID) + 0.5) * length / _GRID - 0.5 for length in region.shape]
            mesh = np.meshgrid(*steps, indexing="ij")
            masks[number] = ndimage.map_coordinates(region.astype(np.float32), mesh, order=1, mode="nearest")
        scores = np.full(count, 0.9, np.float32)
        return [Detections(*image.shape, boxes, scores, np.zeros(count, np.int64), masks)], [1.0]


def _segment(path: Path, side: int, seed: int) -> MosaicCost:
    segmenter = _Threshold()
    segmenter.segment(np.full((64, 64), 100, np.uint8))  # whatever the first call loads
    before, start = resident_peak(), time.perf_counter()
    cells = segmenter.segment(path, overlap=OVERLAP).cells
    seconds, peak = time.perf_counter() - start, resident_peak() - before
    windows = tile_grid(side, side, min(TILE, side), min(OVERLAP, side // 2))
    discs = disc_field(side, seed)
    borders = np.array(sorted({edge for window in windows for edge in window.core} - {0.0, float(side)}))
    on_seams = (np.abs(discs[:, :2, None] - borders) < discs[:, 2, None, None]).any(axis=(1, 2))
    ious, extra = _compare(cells, discs, side // _PITCH)
    found = int((ious > 0.5).sum())
    on_seams_iou = float(ious[on_seams].mean()) if on_seams.any() else float("nan")
    return MosaicCost(
        side,
        len(windows),
        len(discs),
        int(on_seams.sum()),
        found,
        extra,
        float(ious.mean()),
        on_seams_iou,
        seconds,
        peak,
    )


def _compare(cells: Cells, discs: np.ndarray, columns: int) -> tuple[np.ndarray, int]:
    """The IoU of each disc with the first cell in its place, 0 without, and the number of further cells."""
    ious, seen, extra = np.zeros(len(discs)), np.zeros(len(discs), bool), 0
    for crop in cells.crops:
        rows, cols = np.nonzero(crop.mask)
        place = np.floor((np.array([rows.mean() + crop.top, cols.mean() + crop.left]) + 0.5) / _PITCH).astype(int)
        index = int(place.clip(0, columns - 1) @ [columns, 1])
        if seen[index]:
            extra += 1
            continue
        seen[index] = True
        x, y, radius = discs[index]
        both = ((rows + crop.top + 0.5 - y) ** 2 + (cols + crop.left + 0.5 - x) ** 2 <= radius**2).sum()
        ious[index] = both / (len(rows) + draw_disc(x, y, radius).area - both)
    return ious, extra
