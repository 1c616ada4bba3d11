"""The conversion of the competition's annotations beside the usual way: one full-size float mask per row."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from cellseg_d2.benchmarks.memory import resident_peak
from cellseg_d2.datasets.coco_json import category_ids, encode_record
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.sartorius import SartoriusCsv
from cellseg_d2.processes import in_process


@dataclass(frozen=True)
class Cost:
    """What one way of reading costs, measured in a process of its own.

    Attributes:
        rows: that were decoded.
        seconds: seconds of processor time, without reading the CSV.
        megabytes: that the process grew by, at its peak, above what it had after reading the CSV.
    """

    rows: int
    seconds: float
    megabytes: float


def measure_conversion(csv: str | Path, float_images: int = 25) -> dict[str, Cost]:
    """Costs of ours on all rows, and of float masks, kept for one image at a time, on some images.

    Args:
        csv: the competition's, also gzipped.
        float_images: so many images are decoded into float masks, spread evenly over the file.
    """
    return {
        "runs to COCO RLE": in_process(_measure, _to_coco, csv, None),
        "float mask per row": in_process(_measure, _to_float_masks, csv, float_images),
    }


def _measure(work: Callable, csv: str | Path, limit: int | None) -> Cost:
    steps = work(csv, limit)
    next(steps)  # reads the CSV
    before, start = resident_peak(), time.process_time()
    rows = sum(steps)
    seconds = time.process_time() - start
    return Cost(rows, seconds, (resident_peak() - before) / 2**20)


def _to_coco(csv: str | Path, limit: int | None):
    source = SartoriusCsv(csv)
    yield 0
    numbers = category_ids(source.categories)
    for index, record in enumerate(islice(source.records(FindingLog()), limit)):
        encode_record(record, index + 1, numbers)
        yield len(record.cells)


def _to_float_masks(csv: str | Path, limit: int | None):
    table = pd.read_csv(csv)
    yield 0
    images = list(table.groupby("id"))
    for _, rows in images[:: max(1, len(images) // limit) if limit else 1][:limit]:
        masks = []
        for row in rows.itertuples():
            mask = np.zeros(row.height * row.width)
            numbers = row.annotation.split()
            for start, length in zip(numbers[::2], numbers[1::2], strict=True):
                mask[int(start) - 1 : int(start) - 1 + int(length)] = 1
            masks.append(mask.reshape(row.height, row.width))
        np.stack(masks)
        yield len(rows)
