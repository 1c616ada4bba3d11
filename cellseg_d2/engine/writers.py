"""Write losses per iteration as a CSV file, and Detectron2's metrics; both stay complete after interruptions."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

from detectron2.utils.events import EventWriter, JSONWriter, get_event_storage

from cellseg_d2.io.atomic import write_text_atomic

FIRST = ("iteration", "total_loss")
LAST = ("lr", "data_time", "time")


class LossCSVWriter(EventWriter):
    """Writes every iteration's losses, learning rate and times to a CSV file, one row an iteration.

    Detectron2's own writers store a median over the last 20 iterations, at every 20th; here nothing is smoothed.
    Columns: ``iteration``, ``total_loss``, the losses by name, ``lr``, ``data_time`` and ``time`` in seconds.

    A run that starts at iteration 0 starts a new file. A resumed run keeps the rows before its first iteration and
    drops the others, which it will repeat.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._next = 0
        self._columns: list[str] | None = None

    def write(self) -> None:
        storage = get_event_storage()
        values = {
            name: self._new_values(history.values())
            for name, history in storage.histories().items()
            if name in (*FIRST, *LAST) or name.startswith("loss_")
        }
        iterations = sorted(values.get("total_loss", {}))
        if not iterations:
            return
        if self._columns is None:
            losses = sorted(name for name in values if name.startswith("loss_"))
            self._columns = self._open([*FIRST, *losses, *LAST], iterations[0])
        rows = [
            [iteration, *(_number(values.get(name, {}).get(iteration)) for name in self._columns[1:])]
            for iteration in iterations
        ]
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            file.write(_csv_text(rows))
            file.flush()
            os.fsync(file.fileno())
        self._next = iterations[-1] + 1

    def _new_values(self, history: list[tuple[float, float]]) -> dict[int, float]:
        """The values since the last write, by iteration; the history is long, and its end is all that is new."""
        new = {}
        for value, iteration in reversed(history):
            if iteration < self._next:
                break
            new[int(iteration)] = value
        return new

    def _open(self, columns: list[str], start: int) -> list[str]:
        kept: list[list] = []
        if start > 0 and self._path.exists():
            rows = list(csv.reader(_whole_lines(self._path)))
            if rows:
                columns = rows[0]
                kept = [row for row in rows[1:] if len(row) == len(columns) and int(row[0]) < start]
        write_text_atomic(self._path, _csv_text([columns, *kept]), sync=True)
        return columns


class MetricsWriter(EventWriter):
    """Detectron2's ``JSONWriter``, whose file keeps each iteration once.

    Detectron2 appends to the file: a line cut off by a kill would swallow the next one, and a resumed run would list
    iterations twice. Here, the first write of a run removes both; a new run removes everything.

    Args:
        path: the file, with one JSON object per line.
    """

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._writer: JSONWriter | None = None

    def write(self) -> None:
        if self._writer is None:
            starts = [int(history.values()[0][1]) for history in get_event_storage().histories().values()]
            if not starts:
                return
            if self._path.exists():
                kept = [line for line in _whole_lines(self._path) if _iteration(line) < min(starts)]
                write_text_atomic(self._path, "".join(kept), sync=True)
            self._writer = JSONWriter(str(self._path))
        self._writer.write()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _iteration(line: str) -> float:
    """The iteration that a line of ``metrics.json`` is about; infinite where it cannot be read."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file but for a last one that a kill cut off."""
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv_text(rows: list[list]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
