"""Run-length encodings: the competition's text, COCO's compressed strings, and the arrays of runs between them.

Runs are ``(R, 2)`` int64 arrays of ``[start, length]``: 0-based positions in the flattened image. Two orders exist and
must not be mixed: Kaggle's runs are **row-major** (``position = y * width + x``), COCO's are **column-major**
(``position = x * height + y``). Masks themselves are in :mod:`cellseg_d2.masks.crop`.

All masks of an image are decoded and encoded at once, which is much faster for hundreds of them; a single mask is a
batch of one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.errors import CellSegError

NO_RUNS = np.zeros((0, 2), dtype=np.int64)
# Larger images are refused: one mask would take a gigabyte, and pycocotools counts in 32 bits.
MAX_PIXELS = 2**30

_WHOLE = re.compile(r"[+-]?[0-9]+", re.ASCII)
_ZERO = ord("0")


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
        RLEError: a token is not an integer or is beyond 64 bits, or the number of tokens is odd.

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
    return _kaggle_texts(np.asarray(runs, dtype=np.int64), [0, len(runs)])[0]


def _kaggle_texts(runs: np.ndarray, borders: Sequence[int]) -> list[str]:
    """The texts of masks of which each has the runs from one of the ``borders`` to the next."""
    numbers = list(map(str, (runs + np.array([1, 0])).ravel().tolist()))
    return [" ".join(numbers[2 * start : 2 * end]) for start, end in pairwise(borders)]


def equal_runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where equal values follow each other: runs ``(R, 2)`` int64 that cover all of ``values`` ``(P,)``, and the value
    of each.
    """
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]]))
    return np.stack([starts, np.diff(starts, append=len(values))], axis=1), values[starts]


def runs_from_labels(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The canonical **row-major** runs of every cell of a label image.

    Args:
        labels: integers ``(H, W)``, 0 for background, ``i + 1`` for cell ``i``.
        count: number of the cells, ``N``. Any of them may have no pixel.

    Returns:
        The runs of all cells, int64 ``(R, 2)``, and the cell of each, int64 ``(R,)``, ascending.

    Raises:
        ValueError: the array has not two axes, no integers, or a label that is not 0…``count``.

    Example:
        >>> runs, cells = runs_from_labels(np.array([[2, 2, 0], [0, 1, 2]]), 2)
        >>> runs.tolist(), cells.tolist()
        ([[4, 1], [0, 2], [5, 1]], [0, 1, 1])
    """
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be a 2-D array of integers, not {labels.ndim}-D of {labels.dtype}")
    runs, found = equal_runs(labels.ravel())
    cells = found.astype(np.int64) - 1
    if cells.min(initial=0) < -1 or cells.max(initial=-1) >= count:
        raise ValueError(f"labels must be 0…{count}, not {cells.min() + 1}…{cells.max() + 1}")
    order = np.argsort(cells, kind="stable")
    order = order[np.searchsorted(cells[order], 0) :]  # those of the background come first
    return runs[order], cells[order]


def kaggle_from_labels(labels: np.ndarray, count: int) -> list[str]:
    """The competition's text (row-major, 1-indexed) of every cell; empty for a cell without pixels.

    Args, Raises:
        See :func:`runs_from_labels`.

    Example:
        >>> kaggle_from_labels(np.array([[2, 2, 0], [0, 1, 2]]), 3)
        ['5 1', '1 2 6 1', '']
    """
    runs, cells = runs_from_labels(labels, count)
    return _kaggle_texts(runs, np.searchsorted(cells, np.arange(count + 1)).tolist())


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
        height, width: size of the image in pixels.

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
        RLEError: it is not such a dict, or the counts do not add up to the size.
    """
    return _decode([rle], *rle_size(rle))[0]


def decode_coco_many(rles: Sequence[Mapping], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """**Column-major** runs of many COCO RLEs; see :func:`decode_coco`.

    Args:
        rles: ``N`` of one image.
        height, width: size of the image in pixels.

    Returns:
        The runs of all masks, int64 ``(R, 2)``, and the index of the mask of each, int64 ``(R,)``, ascending.

    Raises:
        RLEError: a mask is of another size, or its counts are damaged or do not add up to the size.
    """
    for i, rle in enumerate(rles):
        own = rle_size(rle)
        if own != (height, width):
            raise RLEError(f"mask {i} is of {own[0]} × {own[1]} pixels, but the image has {height} × {width}")
    try:
        return _decode(rles, height, width)
    except RLEError:
        for i, rle in enumerate(rles):  # so that the error names the mask
            try:
                _decode([rle], height, width)
            except RLEError as error:
                raise RLEError(f"mask {i}: {error}") from None
        raise


def _decode(rles: Sequence[Mapping], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the foreground and their masks; see :func:`decode_coco_many`."""
    counts, per_mask = _counts([rle["counts"] for rle in rles])
    # Before the sums, which huge counts could overflow to the very size.
    if (counts < 0).any() or (counts > height * width).any():
        raise RLEError(f"its counts are not parts of the image's {height} × {width} pixels")
    ends, last = np.cumsum(counts), np.cumsum(per_mask)
    covered = np.diff(np.concatenate([[0], ends])[np.concatenate([[0], last])])
    if (covered != height * width).any():
        wrong = covered[covered != height * width][0]
        raise RLEError(f"its counts cover {wrong} pixels, but the image has {height} × {width}")
    mask = np.repeat(np.arange(len(per_mask)), per_mask)
    place = np.arange(len(counts)) - (last - per_mask)[mask]
    foreground = (place % 2 == 1) & (counts > 0)
    starts = ends - counts - mask * (height * width)
    return np.stack([starts[foreground], counts[foreground]], axis=1), mask[foreground]


def rle_size(rle: object) -> tuple[int, int]:
    """``(height, width)`` in pixels of a COCO RLE, of which also ``counts`` must be there.

    Raises:
        RLEError: it is not a dict with both, or its size is none.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= rle.keys():
        raise RLEError("its run lengths lack size or counts")
    size = rle["size"]
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(_is_side(side) for side in size):
        raise RLEError(f"the size of its run lengths, {size!r:.40}, is not height and width")
    height, width = map(int, size)
    if height * width > MAX_PIXELS:
        raise RLEError(f"its size of {width} × {height} pixels is beyond any image")
    return height, width


def _is_side(side: object) -> bool:
    return isinstance(side, int | np.integer) and not isinstance(side, bool) and 0 <= int(side) < 2**31


def _counts(values: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    """COCO's counts of all masks, one after the other, and how many each has, both int64."""
    if all(isinstance(value, str | bytes) for value in values):
        return _decompress(values)
    parts = [_plain_counts(value) if isinstance(value, list) else _decompress([value])[0] for value in values]
    return np.concatenate(parts), np.array([len(part) for part in parts], dtype=np.int64)


def _plain_counts(counts: list) -> np.ndarray:
    """Uncompressed counts as int64; whatever else a list may hold is refused rather than rounded."""
    if not all(type(count) is int and -(2**63) <= count < 2**63 for count in counts):
        raise RLEError("its counts are not a list of whole numbers")
    return np.array(counts, dtype=np.int64)


def _decompress(texts: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """COCO's compressed counts: little-endian groups of 5 bits, sign-extended, from the fourth on as differences.

    The format is that of ``rleToString`` in the COCO API; pycocotools only offers it together with a full-size mask.
    """
    for text in texts:
        if not isinstance(text, str | bytes):
            raise RLEError(f"its counts are of type {type(text).__name__}, neither text nor a list")
    # Whatever is not ASCII is outside the alphabet, in any encoding; a lone surrogate has none.
    data = [text if isinstance(text, bytes) else text.encode("utf-8", "replace") for text in texts]
    lengths = np.array([len(text) for text in data], dtype=np.int64)
    letters = np.frombuffer(b"".join(data), dtype=np.uint8).astype(np.int64) - _ZERO
    borders = np.cumsum(lengths)
    last = (letters & 0x20) == 0  # the last letter of its count
    if (letters & ~0x3F).any() or not last[borders[lengths > 0] - 1].all():
        raise RLEError("its compressed counts are damaged")
    ends = np.flatnonzero(last)
    groups = np.diff(ends, prepend=-1)
    if groups.max(initial=0) > 12:
        raise RLEError("its compressed counts are damaged")
    starts = ends - groups + 1
    shifts = 5 * (np.arange(len(letters)) - np.repeat(starts, groups))
    values = np.add.reduceat((letters & 0x1F) << shifts, starts) if len(starts) else starts
    values = values - np.where(letters[ends] & 0x10, np.int64(1) << 5 * groups, 0)
    # From the fourth count of a text on, each is the difference to the count two places before.
    if len(data) == 1:  # without the books of several
        for chain in (values[1::2], values[2::2]):
            np.cumsum(chain, out=chain)
        return values, np.array([len(values)])
    per_text = np.diff(np.searchsorted(ends, borders), prepend=0)
    text = np.repeat(np.arange(len(data)), per_text)
    place = np.arange(len(values)) - (np.cumsum(per_text) - per_text)[text]
    for chain in (np.flatnonzero(place % 2 == 1), np.flatnonzero((place % 2 == 0) & (place > 0))):
        sums = np.cumsum(values[chain])
        before = np.concatenate([[0], sums])[np.searchsorted(text[chain], np.arange(len(data)))]
        values[chain] = sums - before[text[chain]]
    return values, per_text
