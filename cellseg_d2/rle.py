"""Run-length encodings: the competition's text, COCO's compressed strings, and the arrays of runs between them.

Runs are ``(R, 2)`` int64 arrays of ``[start, length]``: 0-based positions in the flattened image. Two orders exist and
must not be mixed: Kaggle's runs are **row-major** (``position = y * width + x``), COCO's are **column-major**
(``position = x * height + y``). Masks themselves are in :mod:`cellseg_d2.masks`.
"""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.errors import CellSegError

NO_RUNS = np.zeros((0, 2), dtype=np.int64)


class RLEError(CellSegError):
    """A run-length text that cannot be read as pairs of integers."""


def parse_kaggle_rle(text: str) -> np.ndarray:
    """Read the competition's ``"start length start length …"`` (1-indexed, row-major).

    Only the syntax is checked here; :func:`run_problems` tells whether the runs make sense in an image.

    Args:
        text: pairs of integers separated by white space; empty text means no pixels.

    Returns:
        Runs ``(R, 2)`` int64, 0-based, in the order written.

    Raises:
        RLEError: a token is no integer or is beyond 64 bits, or the number of tokens is odd.

    Example:
        >>> parse_kaggle_rle("1 3 10 2").tolist()
        [[0, 3], [9, 2]]
    """
    tokens = text.split()
    if len(tokens) % 2:
        raise RLEError(f"it has {len(tokens)} numbers, but runs are pairs of start and length")
    try:
        values = np.array(tokens, dtype=np.int64) if tokens else np.zeros(0, dtype=np.int64)
    except (ValueError, OverflowError):
        bad = next((t for t in tokens if not _is_int64(t)), tokens[0])
        raise RLEError(f"{bad[:20]!r} is not a whole number") from None
    runs = values.reshape(-1, 2)
    runs[:, 0] -= 1
    return runs


def _is_int64(token: str) -> bool:
    try:
        np.int64(int(token))
    except (ValueError, OverflowError):
        return False
    return True


def format_kaggle_rle(runs: np.ndarray) -> str:
    """Write row-major runs ``(R, 2)`` (0-based) as the competition's text (1-indexed).

    Example:
        >>> format_kaggle_rle(np.array([[0, 3], [9, 2]]))
        '1 3 10 2'
    """
    shifted = np.asarray(runs, dtype=np.int64) + np.array([1, 0])
    return " ".join(map(str, shifted.ravel().tolist()))


def run_problems(runs: np.ndarray, height: int, width: int) -> list[str]:
    """Names of what is wrong with ``runs`` in an image of ``height`` × ``width`` pixels; empty when all is well.

    Possible names: ``"empty"`` (no run at all), ``"non-positive length"``, ``"outside the image"``,
    ``"overlaps itself"``, ``"unsorted"`` (harmless, but not what the format promises).
    """
    if len(runs) == 0:
        return ["empty"]
    problems = []
    starts, lengths = runs[:, 0], runs[:, 1]
    if (lengths <= 0).any():
        problems.append("non-positive length")
    size = height * width
    # `starts > size - lengths` rather than `starts + lengths > size`, which a huge number would overflow.
    if (starts < 0).any() or (starts >= size).any() or (starts > size - np.clip(lengths, 0, size + 1)).any():
        problems.append("outside the image")
    else:
        order = np.argsort(starts, kind="stable")
        if (order[1:] < order[:-1]).any():
            problems.append("unsorted")
        starts, lengths = starts[order], lengths[order]
        if (starts[1:] < starts[:-1] + lengths[:-1]).any():
            problems.append("overlaps itself")
    return problems


def clean_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """The canonical runs of the same pixels: inside the image, sorted, disjoint and not touching.

    Parts outside the image and runs of non-positive length are dropped; overlapping and touching runs are merged.

    Args:
        runs: ``(R, 2)`` in either order.
        height, width: of the image in pixels.

    Returns:
        Runs ``(R', 2)`` int64.
    """
    size = height * width
    starts = np.clip(runs[:, 0], 0, size)
    lengths = np.clip(runs[:, 1], 0, None)
    # A run that begins before the image keeps only the part inside it.
    ends = np.clip(np.clip(runs[:, 0], -size, size) + np.clip(lengths, 0, 2 * size), 0, size)
    keep = ends > starts
    starts, ends = starts[keep], ends[keep]
    if len(starts) == 0:
        return NO_RUNS.copy()
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[1:] > ends[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([starts[first], ends[last] - starts[first]], axis=1)


def runs_to_counts(runs: np.ndarray, size: int) -> np.ndarray:
    """Alternating counts of background and foreground pixels, as COCO stores them uncompressed.

    Args:
        runs: canonical runs ``(R, 2)`` (see :func:`clean_runs`).
        size: number of pixels of the image.

    Returns:
        Counts int64, starting with background, summing to ``size``.
    """
    edges = np.empty(2 * len(runs) + 2, dtype=np.int64)
    edges[0], edges[-1] = 0, size
    edges[1:-1:2] = runs[:, 0]
    edges[2:-1:2] = runs[:, 0] + runs[:, 1]
    counts = np.diff(edges)
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts


def counts_to_runs(counts: np.ndarray) -> np.ndarray:
    """Runs ``(R, 2)`` of the foreground in COCO's alternating ``counts``; inverse of :func:`runs_to_counts`."""
    ends = np.cumsum(counts)
    runs = np.stack([ends[0:-1:2], counts[1::2]], axis=1) if len(counts) > 1 else NO_RUNS.copy()
    return runs[runs[:, 1] > 0]


def encode_coco(runs: np.ndarray, height: int, width: int) -> dict:
    """Compressed COCO RLE of canonical **column-major** runs.

    Returns:
        ``{"size": [height, width], "counts": str}``, ready for JSON.
    """
    counts = runs_to_counts(runs, height * width).tolist()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [int(height), int(width)], "counts": rle["counts"].decode("ascii")}


def decode_coco(rle: dict) -> np.ndarray:
    """Column-major runs ``(R, 2)`` of a COCO RLE, without building the mask.

    Args:
        rle: ``{"size": [height, width], "counts": str | bytes | list[int]}``.

    Raises:
        RLEError: the counts do not add up to the size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    counts = np.asarray(counts, dtype=np.int64) if isinstance(counts, list) else _decompress(counts)
    if (counts < 0).any() or counts.sum() != height * width:
        raise RLEError(f"its counts cover {counts.sum()} pixels, but the image has {height} × {width}")
    return counts_to_runs(counts)


def _decompress(counts: str | bytes) -> np.ndarray:
    """COCO's compressed counts: little-endian groups of 5 bits, sign-extended, from the fourth on as differences.

    The format is that of ``rleToString`` in the COCO API; pycocotools only offers it together with a full-size mask.
    """
    # Whatever is not ASCII is outside the alphabet, in any encoding.
    data = np.frombuffer(counts.encode("utf-8") if isinstance(counts, str) else counts, dtype=np.uint8)
    data = data.astype(np.int64) - 48
    if len(data) == 0:
        return np.zeros(0, dtype=np.int64)
    ends = np.flatnonzero((data & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if len(ends) == 0 or ends[-1] != len(data) - 1 or (data < 0).any() or (data > 0x3F).any():
        raise RLEError("its compressed counts are damaged")
    shifts = 5 * (np.arange(len(data)) - np.repeat(starts, ends - starts + 1))
    if shifts.max() > 55:
        raise RLEError("its compressed counts are damaged")
    values = np.add.reduceat((data & 0x1F) << shifts, starts)
    negative = (data[ends] & 0x10) != 0
    values[negative] -= np.int64(1) << (shifts[ends][negative] + 5)
    # Counts 3, 4, 5 … are differences to the count two places before; count 0 stands outside that chain.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
