"""Run-lengths of all cells of a label image from one pass over its pixels, however many cells there are.

Where the label changes a run ends and the next one begins; all that follows, up to the letters of the encodings, is
done with the runs of all cells at once. The encodings are those of :func:`cellseg_d2.masks.crop.crop_to_kaggle` and
:func:`cellseg_d2.masks.crop.crop_to_coco`, letter by letter.
"""

from __future__ import annotations

import numpy as np

_SPACE = ord(" ")
_ZERO = ord("0")


def runs_from_labels(labels: np.ndarray, count: int, column_major: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The canonical runs of every cell of a label image.

    Args:
        labels: integers ``(H, W)``, 0 for background, ``i + 1`` for cell ``i``.
        count: of the cells, ``N``. Any of them may have no pixel.
        column_major: whether the runs are those of COCO rather than Kaggle's row-major ones.

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
    flat = (labels.T if column_major else labels).ravel()
    if len(flat) == 0:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], len(flat))
    cells = flat[starts].astype(np.int64) - 1
    if cells.min() < -1 or cells.max() >= count:
        raise ValueError(f"labels must be 0…{count}, not {cells.min() + 1}…{cells.max() + 1}")
    order = np.argsort(cells, kind="stable")
    order = order[np.searchsorted(cells[order], 0) :]  # those of the background come first
    return np.stack([starts[order], ends[order] - starts[order]], axis=1), cells[order]


def kaggle_from_labels(labels: np.ndarray, count: int) -> list[str]:
    """The competition's text (row-major, 1-indexed) of every cell; empty for a cell without pixels.

    Args, Raises:
        See :func:`runs_from_labels`.

    Example:
        >>> kaggle_from_labels(np.array([[2, 2, 0], [0, 1, 2]]), 3)
        ['5 1', '1 2 6 1', '']
    """
    runs, cells = runs_from_labels(labels, count)
    numbers = (runs + np.array([1, 0])).ravel()
    # Decimal digits of all numbers, from the last to the first, and a space behind; leading zeros are not shown.
    most = len(str(labels.size))
    letters = np.full((len(numbers), most + 1), _SPACE, dtype=np.uint8)
    shown = np.ones(letters.shape, dtype=bool)
    for place in reversed(range(most)):
        tens = numbers // 10
        letters[:, place] = numbers - 10 * tens + _ZERO
        shown[:, place] = numbers > 0
        numbers = tens
    text = letters[shown].tobytes().decode("ascii")
    lengths = np.bincount(cells, shown.sum(axis=1).reshape(-1, 2).sum(axis=1), count).astype(np.int64)
    ends = np.cumsum(lengths)
    return [text[start:end].rstrip() for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]


def coco_from_labels(labels: np.ndarray, count: int) -> list[dict]:
    """The compressed COCO RLE ``{"size", "counts"}`` of every cell (column-major); see :func:`runs_from_labels`.

    Example:
        >>> [rle["counts"] for rle in coco_from_labels(np.array([[2, 2, 0], [0, 1, 2]]), 2)]
        ['312', '011010']
    """
    height, width = labels.shape
    runs, cells = runs_from_labels(labels, count, column_major=True)
    counts, number = _counts(runs, cells, count, labels.size)
    text, lengths = _compressed(counts, number)
    ends = np.cumsum(lengths)
    return [
        {"size": [height, width], "counts": text[start:end]}
        for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    ]


def _counts(runs: np.ndarray, cells: np.ndarray, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """COCO's alternating counts of all cells, one behind the other, and how many each has, both int64.

    The batch form of :func:`cellseg_d2.masks.rle.runs_to_counts`.
    """
    per_cell = np.bincount(cells, minlength=count)
    # Each cell has two borders for each run, between one at the image's beginning and one at its end.
    first = 2 * (np.cumsum(per_cell) - per_cell + np.arange(count))
    last = first + 2 * per_cell + 1
    borders = np.empty(2 * (len(runs) + count), dtype=np.int64)
    borders[first], borders[last] = 0, size
    at = 2 * np.arange(len(runs)) + 2 * cells + 1
    borders[at], borders[at + 1] = runs[:, 0], runs.sum(axis=1)
    counts = np.diff(borders, prepend=0)
    used = np.ones(len(counts), dtype=bool)
    used[first] = False
    used[last] = (counts[last] > 0) | (per_cell == 0)  # no count of background behind a run at the image's end
    return counts[used], 2 * per_cell + used[last]


def _compressed(counts: np.ndarray, number: np.ndarray) -> tuple[str, np.ndarray]:
    """COCO's letters for counts of which each cell has ``number``; and the number of letters of each cell.

    The format is that of ``rleToString`` in the COCO API: from the fourth count on the difference to the count two
    places before, in groups of 5 bits from the lowest on, with a sixth bit where another group follows.
    """
    cell = np.repeat(np.arange(len(number)), number)
    place = np.arange(len(counts)) - (np.cumsum(number) - number)[cell]
    values = counts.copy()
    later = np.flatnonzero(place > 2)
    values[later] -= counts[later - 2]
    # A group holds -16 … 15, two hold -512 … 511, and so on.
    groups = np.ones(len(values), dtype=np.int64)
    magnitude = np.where(values < 0, ~values, values) >> 4
    while magnitude.any():
        groups += magnitude > 0
        magnitude >>= 5
    value = np.repeat(np.arange(len(values)), groups)
    group = np.arange(len(value)) - (np.cumsum(groups) - groups)[value]
    letters = (values[value] >> 5 * group) & 0x1F
    letters += np.where(group < groups[value] - 1, 0x20, 0) + _ZERO
    text = letters.astype(np.uint8).tobytes().decode("ascii")
    return text, np.bincount(cell, groups, len(number)).astype(np.int64)
