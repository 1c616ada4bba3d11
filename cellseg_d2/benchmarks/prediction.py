"""Post-processing and output of one crowded image: time, memory and agreement of the ways to do it."""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.benchmarks.memory import peak_bytes
from cellseg_d2.benchmarks.prediction_ways import OURS, STOCK, ways
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.saved import load_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.masks.crop import crop_to_coco, crop_to_kaggle, kaggle_to_crop
from cellseg_d2.simulation.layout import place_cells

_BLUR = 0.8  # pixels over which a simulated mask's edge is unsure
_JITTER = 0.7  # pixels by which the sides of a simulated box are off
_BORDER = 4  # pixels around a simulated mask, more than both reach
# Ways that take less are repeated until they took so long together: a single call would mostly measure the clock.
LEAST_SECONDS = 0.15


@dataclass(frozen=True)
class Cost:
    """What a way costs and gives.

    Attributes:
        seconds, cpu_seconds: of every repeat, wall clock and processor.
        treated, detections: so many of so many detections were treated; the seconds are of all.
        peak: bytes that it takes at most, above what is there before; None where the system does not tell.
        cells: with pixels, of those that were treated.
        iou: mean IoU of these with the same cells of this project's way, 0 … 1; where overlaps are left, with the
            masks before they are resolved.
        least_iou: the least of them.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    treated: int
    detections: int
    peak: int | None
    cells: int
    iou: float
    least_iou: float

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)

    def times_slower_than(self, other: Cost) -> dict[str, float]:
        """Ratio of the medians, by wall clock and by processor time."""
        return {
            "wall": self.median / other.median,
            "cpu": statistics.median(self.cpu_seconds) / statistics.median(other.cpu_seconds),
        }


def simulated_detections(cells: int, height: int, width: int, seed: int = 0, size: int = 28) -> Detections:
    """Detections of simulated, crowded shsy5y cells, as a network might give them: soft masks, boxes a little off.

    Args:
        cells: number of detections; 800 on 520 × 704 pixels is about as dense as the densest real image.
        height, width: size of the image in pixels.
        seed: seed of all random draws.
        size: size of the masks' grids.

    Raises:
        CellSegError: there is no room for so many cells.
    """
    rng = np.random.default_rng(seed)
    placed = place_cells("shsy5y", rng, height, width, count=cells + cells // 4 + 4)[:cells]
    if len(placed) < cells:
        raise CellSegError(
            f"only {len(placed)} of {cells} simulated cells find room in {height} × {width} pixels; "
            "take a larger image or fewer cells"
        )
    boxes = np.array([cell.crop.box for cell in placed])
    boxes = (boxes + rng.normal(0, _JITTER, boxes.shape)).clip(0, [width, height, width, height]).astype(np.float32)
    steps = (np.arange(size) + 0.5) / size
    masks = np.empty((cells, size, size), dtype=np.float32)
    for mask, cell, (x0, y0, x1, y1) in zip(masks, placed, boxes, strict=True):
        soft = cv2.GaussianBlur(np.pad(cell.shape.mask, _BORDER).astype(np.float32), (0, 0), _BLUR)
        # From the centres of the grid's cells to indices of the padded mask's pixels.
        x = x0 + steps * (x1 - x0) - 0.5 - cell.left + _BORDER
        y = y0 + steps * (y1 - y0) - 0.5 - cell.top + _BORDER
        mask[:] = cv2.remap(soft, *np.meshgrid(x.astype(np.float32), y.astype(np.float32)), cv2.INTER_LINEAR)
    scores = rng.uniform(0.5, 1, cells).astype(np.float32)
    return Detections(height, width, boxes, scores, np.zeros(cells, dtype=np.int64), masks)


def densest_detections(path: str | Path, cells: int | None = None) -> tuple[str, Detections]:
    """Name and detections of the image with most of them in a file of saved detections.

    Args:
        path: path of the file.
        cells: so many at most, those with the best scores.

    Raises:
        CellSegError: the file cannot be read, or no image in it has detections with masks of probabilities.
    """
    soft = {name: d for name, d in load_detections(path).images.items() if isinstance(d.masks, np.ndarray) and len(d)}
    if not soft:
        raise CellSegError(f"{path} has no image with detections whose masks are probabilities")
    name = max(soft, key=lambda name: len(soft[name]))
    best = np.argsort(-soft[name].scores, kind="stable")[:cells]
    return name, soft[name].select(np.sort(best))


def measure_ways(detections: Detections, repeats: int = 3, full: bool = False) -> dict[str, Cost]:
    """Time all ways in turn, A B C A B C …, then take the memory of each, and compare their masks.

    Args:
        detections: detections of one image, at least one.
        repeats: number of repeats of all ways.
        full: see :func:`cellseg_d2.benchmarks.prediction_ways.ways`.
    """
    compared = ways(full)
    for way in compared.values():  # imports, and first-time costs of libraries
        way(detections.select(np.arange(min(len(detections), 3))))
    seconds = {name: [] for name in compared}
    outcomes = {}
    for repeat in range(repeats):
        for name, way in track(compared.items(), f"repeat {repeat + 1} of {repeats}", "way"):
            gc.collect()
            calls = []
            while np.sum(calls) < LEAST_SECONDS:
                outcomes[name] = way(detections)
                calls.append(outcomes[name].seconds)
            seconds[name].append(np.mean(calls, axis=0))
    resolved = _as_coco(outcomes[OURS].masks, detections)
    unresolved = _as_coco([crop_to_kaggle(crop, detections.width) for crop in detections.crops()], detections)
    costs = {}
    for name, way in ways(full=False).items():  # a few masks more do not change how much memory the loops need
        outcome = outcomes[name]
        iou = _best_iou(_as_coco(outcome.masks, detections), unresolved if name == STOCK else resolved)
        peak = peak_bytes(lambda way=way: way(detections))
        wall, cpu = np.transpose(seconds[name]).tolist()
        agreement = (len(iou), float(iou.mean()), float(iou.min()))
        costs[name] = Cost(wall, cpu, outcome.treated, len(detections), peak, *agreement)
    return costs


def _as_coco(masks: list[str] | list[dict], detections: Detections) -> list[dict]:
    """COCO RLEs of texts, or as they are; without empty ones."""
    height, width = detections.height, detections.width
    rles = [
        crop_to_coco(kaggle_to_crop(mask, height, width), height, width) if isinstance(mask, str) else mask
        for mask in masks
    ]
    return [rle for rle in rles if coco_mask.area(rle)]


def _best_iou(masks: list[dict], reference: list[dict]) -> np.ndarray:
    """Of each mask the IoU with the one in ``reference`` that it agrees with most, float64 ``(N,)``; ``N`` is not 0."""
    if not masks or not reference:
        raise CellSegError("none of the detections has a pixel at the mask threshold 0.5; there is nothing to measure")
    return coco_mask.iou(masks, reference, [0] * len(reference)).max(axis=1)
