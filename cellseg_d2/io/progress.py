"""How far a long work is: a bar on a terminal, and lines in pipes, logs and notebooks, which keep what was said."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm as Progress

# Seconds between two lines. Work that takes less says nothing.
PAUSE = 10.0
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} left{postfix}"


def track(
    items: Iterable | None,
    doing: str,
    unit: str = "image",
    total: int | None = None,
    *,
    each: bool = False,
    shown: bool = True,
) -> Progress:
    """``items`` one after the other, saying on stderr how many are done and how long the others will take.

    The one way in which this project shows progress. Say something beside it with the result's ``write``; add to its
    line with ``set_postfix_str(…, refresh=False)``.

    Args:
        items: what is worked on; None counts what the result's ``update`` is called with.
        doing: what is done, such as "converting".
        unit: an item, in the singular.
        total: number of items, where they have no length.
        each: every item gets a line, and a terminal keeps the full bar; else there is a line every :data:`PAUSE`
            seconds, and nothing of it stays on a terminal.
        shown: False says nothing.
    """
    options: dict[str, Any] = {"desc": doing, "unit": unit, "total": total, "disable": not shown, "leave": each}
    if not sys.stderr.isatty():
        options |= {"file": _Lines(sys.stderr), "bar_format": _LINE, "delay": 1e-9}  # no line of 0 items
        options |= {"mininterval": 0, "miniters": 1} if each else {"mininterval": PAUSE}
    return Progress(items, **options)


def share_no_lock() -> None:
    """Have bars of this process lock among its threads only.

    Their own lock is a semaphore of the system, which a killed process leaves behind.
    """
    Progress.set_lock(threading.RLock())


class _Lines:
    """Takes what is to be drawn over the last bar, and writes what is new in it as a line."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        line = text.strip()
        if line and line != self._last:
            self._stream.write(line + "\n")
            self._stream.flush()
            self._last = line

    def flush(self) -> None:
        self._stream.flush()
