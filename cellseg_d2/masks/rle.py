"""Run-length encodings: the competition's text, COCO's compressed strings, and the arrays of runs between them.

Runs are ``(R, 2)`` int64 arrays of ``[start, length]``: 0-based positions in the flattened image. Two orders exist and
must not be mixed: Kaggle's runs are **row-major** (``position = y * width + x``), COCO's are **column-major**
(``position = x * height + y``). Masks themselves are in :mod:`cellseg_d2.masks.crop`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.errors import CellSegError

NO_RUNS = np.zeros((0, 2), dtype=np.int64)
# Images beyond this are taken for nonsense: a mask as large takes a gigabyte, and pycocotools counts in 32 bits.
MAX_PIXELS = 2**30


_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)


class RLEError(CellSegError):
    """A run-length text that cannot be read as pairs of integers."""


def parse_kaggle_rle(text: str) -> np.ndarray:
    """Read the competition's ``"start length start length …"`` (1-indexed, row-major).

    Only the syntax is checked here; :func:`run_problems` tells whether the runs make sense in an image.

    Args:
        text: pairs of integers in ASCII digits separated by white space; empty text means no pixels.

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
        values = None
    # NumPy also reads digits of other scripts, `1_000`, and past a NUL character; the format has none of them.
    plain = text.isascii() and "_" not in text and "\0" not in text
    if values is None or not plain:
        bad = next((token for token in tokens if not _WHOLE.fullmatch(token)), None)
        if bad is not None:
            raise RLEError(f"{bad[:20]!r} is not a whole number")
    if values is None or values.min(initial=0) == np.iinfo(np.int64).min:
        raise RLEError(f"{max(tokens, key=len)[:20]!r} is far beyond any image")
    runs = values.reshape(-1, 2)
    runs[:, 0] -= 1
    return runs


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
    # A run that begins before the image keeps only the part inside it. No sum here can overflow: the first has a
    # negative part, both parts of the second are at most `size`.
    before = np.minimum(runs[:, 0], 0) + lengths
    ends = np.clip(np.where(runs[:, 0] < 0, before, starts + np.minimum(lengths, size)), 0, size)
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


def decode_coco(rle: Mapping) -> np.ndarray:
    """Column-major runs ``(R, 2)`` of a COCO RLE, without building the mask.

    Args:
        rle: ``{"size": [height, width], "counts": str | bytes | list[int]}``.

    Raises:
        RLEError: it is no such dict, or the counts do not add up to the size.
    """
    height, width = rle_size(rle)
    counts = rle["counts"]
    counts = _plain_counts(counts) if isinstance(counts, list) else _decompress(counts)
    # Before the sum, which huge counts could overflow to the very size.
    if (counts < 0).any() or (counts > height * width).any():
        raise RLEError(f"its counts are no parts of the image's {height} × {width} pixels")
    if counts.sum() != height * width:
        raise RLEError(f"its counts cover {counts.sum()} pixels, but the image has {height} × {width}")
    return counts_to_runs(counts)


def rle_size(rle: object) -> tuple[int, int]:
    """``(height, width)`` in pixels of a COCO RLE, of which also ``counts`` must be there.

    Raises:
        RLEError: it is no dict with both, or its size is none.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= rle.keys():
        raise RLEError("its run lengths lack size or counts")
    size = rle["size"]
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(_is_side(side) for side in size):
        raise RLEError(f"the size of its run lengths, {size!r:.40}, is no height and width")
    height, width = map(int, size)
    if height * width > MAX_PIXELS:
        raise RLEError(f"its size of {width} × {height} pixels is beyond any image")
    return height, width


def _is_side(side: object) -> bool:
    return isinstance(side, int | np.integer) and not isinstance(side, bool) and 0 <= int(side) < 2**31


def _plain_counts(counts: list) -> np.ndarray:
    """Uncompressed counts as int64; whatever else a list may hold is refused rather than rounded."""
    if not all(type(count) is int and -(2**63) <= count < 2**63 for count in counts):
        raise RLEError("its counts are no list of whole numbers")
    return np.array(counts, dtype=np.int64)


def _decompress(counts: str | bytes) -> np.ndarray:
    """COCO's compressed counts: little-endian groups of 5 bits, sign-extended, from the fourth on as differences.

    The format is that of ``rleToString`` in the COCO API; pycocotools only offers it together with a full-size mask.
    """
    if not isinstance(counts, str | bytes):
        raise RLEError(f"its counts are of type {type(counts).__name__}, neither text nor a list")
    # Whatever is not ASCII is outside the alphabet, in any encoding; a lone surrogate has none.
    data = np.frombuffer(counts.encode("utf-8", "replace") if isinstance(counts, str) else counts, dtype=np.uint8)
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
