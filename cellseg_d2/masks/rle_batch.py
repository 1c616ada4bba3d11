"""All COCO RLEs of an image decoded at once, which for hundreds of cells is much faster than one after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellseg_d2.masks.rle import NO_RUNS, RLEError, decode_coco, rle_size


def decode_coco_many(rles: Sequence[dict], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """**Column-major** runs of many COCO RLEs; the batch form of :func:`cellseg_d2.masks.rle.decode_coco`.

    Args:
        rles: ``N`` dicts ``{"size": [height, width], "counts": str | bytes | list[int]}``.
        height, width: of the image in pixels.

    Returns:
        The runs of all masks, int64 ``(R, 2)``, and the index of the mask of each, int64 ``(R,)``, ascending.

    Raises:
        RLEError: a mask is of another size, or its counts are damaged or do not add up to the size.
    """
    for i, rle in enumerate(rles):
        own = rle_size(rle)
        if own != (height, width):
            raise RLEError(f"mask {i} is of {own[0]} × {own[1]} pixels, but the image has {height} × {width}")
    texts = [rle["counts"] for rle in rles]
    if all(isinstance(text, str | bytes) for text in texts):
        texts = [text if isinstance(text, bytes) else text.encode("utf-8", "replace") for text in texts]
        counts = _decompress_many(b"".join(texts), [len(text) for text in texts], height * width)
        if counts is not None:
            return _foreground(*counts, height * width)
    # Uncompressed counts, and damaged ones: one by one, so that the error names the mask.
    runs = [_decode_one(i, rle) for i, rle in enumerate(rles)]
    return np.concatenate([NO_RUNS, *runs]), np.repeat(np.arange(len(rles)), [len(own) for own in runs])


def _decode_one(index: int, rle: dict) -> np.ndarray:
    try:
        return decode_coco(rle)
    except RLEError as error:
        raise RLEError(f"mask {index}: {error}") from None


def _decompress_many(data: bytes, lengths: list[int], size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts of compressed texts that lie one behind the other; None when anything about them is wrong.

    See ``rle._decompress`` for the format.

    Returns:
        Counts int64 ``(V,)`` of all texts, and the number of counts of each text, int64 ``(N,)``.
    """
    digits = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    borders = np.cumsum([0, *lengths])
    last = (digits & 0x20) == 0  # the last digit of its count
    if min(lengths, default=1) == 0 or not last[borders[1:] - 1].all():
        return None
    if (digits < 0).any() or (digits > 0x3F).any():
        return None
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    digits_of = ends - starts + 1
    if digits_of.max(initial=0) > 11:
        return None
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, digits_of))
    values = np.add.reduceat((digits & 0x1F) << shifts, starts) if len(starts) else np.zeros(0, dtype=np.int64)
    values -= np.where(digits[ends] & 0x10, np.int64(1) << 5 * digits_of, 0)
    # From the fourth count of a text on, each is the difference to the count two places before.
    per_text = np.diff(np.searchsorted(ends, borders))
    place = np.arange(len(values)) - np.repeat(np.cumsum(per_text) - per_text, per_text)
    text = np.repeat(np.arange(len(lengths)), per_text)
    for chain in (np.flatnonzero(place % 2 == 1), np.flatnonzero((place % 2 == 0) & (place > 0))):
        sums = np.cumsum(values[chain])
        before = np.concatenate([[0], sums])[np.searchsorted(text[chain], np.arange(len(lengths)))]
        values[chain] = sums - before[text[chain]]
    if (values < 0).any() or (values > size).any():
        return None
    totals = np.add.reduceat(values, np.cumsum(per_text) - per_text) if len(per_text) else per_text
    return (values, per_text) if (totals == size).all() else None


def _foreground(counts: np.ndarray, per_mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of the foreground and their masks, from counts of which each mask's add up to ``size``."""
    mask = np.repeat(np.arange(len(per_mask)), per_mask)
    place = np.arange(len(counts)) - np.repeat(np.cumsum(per_mask) - per_mask, per_mask)
    starts = np.cumsum(counts) - counts - mask * size
    foreground = (place % 2 == 1) & (counts > 0)
    return np.stack([starts[foreground], counts[foreground]], axis=1), mask[foreground]
