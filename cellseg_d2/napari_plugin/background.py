"""Work in a thread beside Qt's, and what becomes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

from napari.qt.threading import FunctionWorker, thread_worker

from cellseg_d2.errors import CellSegError

T = TypeVar("T")


class Stopped(Exception):
    """The user has pressed Stop."""


def in_background(
    work: Callable[[], T],
    done: Callable[[T], object],
    failed: Callable[[CellSegError | Stopped], object],
    finished: Callable[[], object],
) -> FunctionWorker:
    """Start work in a thread of its own.

    Args:
        work: what is done there. Any error but those that ``failed`` takes is shown by napari, with its traceback.
        done, failed: called in Qt's thread, one of them.
        finished: called there after it, in any case.
    """

    @thread_worker(ignore_errors=True)  # napari shows them by itself
    def guarded() -> tuple[T | None, CellSegError | Stopped | None]:
        warnings.simplefilter("ignore")  # of PyTorch about Detectron2: napari would show each to the user
        try:
            return work(), None
        except (CellSegError, Stopped) as error:
            return None, error

    def returned(result: tuple) -> None:
        value, error = result
        done(value) if error is None else failed(error)

    worker = guarded()
    worker.returned.connect(returned)
    worker.finished.connect(finished)
    worker.start()
    return worker
