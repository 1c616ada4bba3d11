"""Results of the measurements as aligned tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tabulate import tabulate

from cellseg_d2.benchmarks.conversion import Cost
from cellseg_d2.benchmarks.mappers import STOCK, Rate, TargetSize
from cellseg_d2.benchmarks.models import ModelCost
from cellseg_d2.benchmarks.mosaic import MosaicCost
from cellseg_d2.benchmarks.prediction import Cost as PredictionCost
from cellseg_d2.benchmarks.prediction_ways import OURS
from cellseg_d2.benchmarks.rotation import Outside, RoundTrip
from cellseg_d2.benchmarks.training import MOST_IMAGES, Memory, Waiting


def rates_table(rates: Mapping[str, Rate]) -> str:
    """Speed of the mappers; how many times faster than stock, by wall clock, by processor time, and image by image."""
    rows = []
    for name, rate in rates.items():
        times = 1000 * np.array(rate.seconds)
        low, middle, high = (_milliseconds(value) for value in (times.min(), np.median(times), times.max()))
        row = [name, f"{rate.per_second:.3g}", middle, f"{low} … {high}", f"{np.mean(rate.cells):.0f}"]
        if name != STOCK:
            gain = rate.times_faster_than(rates[STOCK])
            singles = f"{gain['median']:.1f} ({gain['least']:.1f} … {gain['greatest']:.1f})"
            row += [f"{gain['all']:.1f} ×", f"{gain['cpu']:.1f} ×", singles]
        rows.append(row)
    headers = [
        "mapper",
        "images/s",
        "ms: median",
        "least … greatest",
        "cells",
        "faster",
        "by CPU time",
        "image by image",
    ]
    return _table(rows, headers)


def conversion_table(costs: Mapping[str, Cost]) -> str:
    """Processor time and memory of each way of reading annotations."""
    rows = [
        [name, f"{c.rows:,}", f"{c.seconds:.1f}", f"{1e6 * c.seconds / c.rows:.0f}", f"{c.megabytes:,.0f}"]
        for name, c in costs.items()
    ]
    return _table(rows, ["way", "rows", "CPU s", "µs per row", "MB at the peak, above the CSV's"])


def models_table(costs: Mapping[str, ModelCost]) -> str:
    """Size, time and memory of models."""
    rows = [
        [
            name,
            f"{c.parameters / 1e6:.1f}",
            f"{c.batch} × {c.megapixels / c.batch:.3f}",
            f"{c.train_seconds:.2f}",
            f"{c.train_peak / 2**30:.2f}",
            f"{c.predict_seconds:.2f}",
            f"{c.predict_peak / 2**30:.2f}",
            c.detections,
        ]
        for name, c in costs.items()
    ]
    headers = [
        "model",
        "M parameters",
        "batch × megapixels",
        "s an iteration",
        "GiB",
        "s a prediction",
        "GiB",
        "detections",
    ]
    return _table(rows, headers)


def prediction_table(costs: Mapping[str, PredictionCost]) -> str:
    """Time, memory and masks of each way from detections to run-lengths, and how many times slower than ours it is."""
    rows = []
    for name, c in costs.items():
        of = "" if c.treated == c.detections else f" (from {c.treated} of {c.detections})"
        memory = "–" if c.peak is None else f"{c.peak / 1e6:,.1f}"
        ratios = c.times_slower_than(costs[OURS])
        slower = ["", ""] if name == OURS else [f"{ratios['wall']:,.1f} ×", f"{ratios['cpu']:,.1f} ×"]
        agreement = [c.cells, f"{c.iou:.5f}", f"{c.least_iou:.3f}"]
        rows.append([name + of, _milliseconds(1000 * c.median), *slower, memory, *agreement])
    return _table(rows, ["way", "ms", "slower", "by CPU time", "MB more at the peak", "cells", "mean IoU", "least IoU"])


def targets_table(sizes: Mapping[str, TargetSize]) -> str:
    """Bytes of the targets."""
    stock = sizes[STOCK]
    rows = [
        [name, size.cells, f"{size.tensors:,}", f"{size.pickled:,}"]
        + ([f"{stock.tensors / size.tensors:.0f} ×", f"{stock.pickled / size.pickled:.0f} ×"] if size != stock else [])
        for name, size in sizes.items()
    ]
    return _table(rows, ["targets", "cells", "bytes", "bytes pickled", "fewer", "fewer pickled"])


def round_trips_table(trips: Mapping[str, RoundTrip]) -> str:
    """Quality of masks that were rotated and rotated back."""
    rows = [[name, f"{trip.score:.4f}", f"{trip.iou:.4f}", f"{trip.cells:,}"] for name, trip in trips.items()]
    return _table(rows, ["masks", "score", "mean IoU", "cells"])


def outside_table(results: Mapping[str, Outside]) -> str:
    """What rotated samples show from outside the image."""
    rows = [
        [name, r.samples, f"{r.clean:.1%}", f"{r.pixels:.1%}", "–" if r.agreeing is None else f"{r.agreeing:.1%}"]
        for name, r in results.items()
    ]
    return _table(rows, ["rotation", "samples", "without outside", "pixels from outside", "checked picture agrees"])


def waiting_table(runs: Mapping[str, Waiting]) -> str:
    """Share of the time that training waited for data."""
    rows = []
    for name, w in runs.items():
        step, waited = (_milliseconds(1000 * seconds / w.iterations) for seconds in (w.seconds, w.data_seconds))
        rows.append((name, w.iterations, step, waited, f"{w.share:.2%}"))
    return _table(rows, ["run", "iterations", "ms an iteration", "ms waiting for data", "share"])


def mosaic_table(costs: Sequence[MosaicCost]) -> str:
    """What is found in images of growing size, in windows, and what it costs."""
    rows = [
        [
            f"{c.side:,} × {c.side:,}",
            c.windows,
            f"{c.discs:,}",
            f"{c.found:,}",
            c.extra,
            f"{c.iou:.4f}",
            f"{c.iou_on_seams:.4f}" if c.on_seams else "–",
            f"{c.on_seams:,}",
            f"{c.seconds:,.1f}",
            f"{c.peak / 1e6:,.0f}",
        ]
        for c in costs
    ]
    return _table(
        rows,
        ["pixels", "windows", "cells", "found", "too many", "mean IoU", "on seams", "cells on seams", "s", "MB more"],
    )


def memory_table(memory: Mapping[str, Memory]) -> str:
    """GPU memory of training."""
    rows = [
        [
            name,
            f"{m.peak / 2**30:.2f}" if m.largest_batch else "does not fit",
            f"{m.largest_batch}" + (" or more" if m.largest_batch == MOST_IMAGES else ""),
        ]
        for name, m in memory.items()
    ]
    return _table(rows, ["targets", "GiB at most, 1 image", "largest batch"])


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _table(rows: Sequence[Sequence], headers: list[str]) -> str:
    return tabulate(rows, headers, colalign=("left", *["right"] * (len(headers) - 1)), disable_numparse=True)
