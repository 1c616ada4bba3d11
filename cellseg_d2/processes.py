"""Run work in other processes: a killed process ends the work with a sentence, and none outlives its parent."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from cellseg_d2.errors import CellSegError

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


# Seconds between checks that all workers are alive: the executor may miss that one has ended while it got work.
_PATIENCE = 2.0


def in_processes(
    function: Callable[[S], T], items: Iterable[S], workers: int, initializer: Callable[[], object] | None = None
) -> Generator[T, None, None]:
    """Apply ``function`` to each item in several processes; yields the results in the order of the items.

    ``multiprocessing.Pool`` waits for ever for the result of a killed process; this notices it. Only some items are
    submitted ahead of the results that are consumed.

    Args:
        function: a function of a module, so that other processes can import it; like items and results it must be
            picklable.
        items: arguments of the calls.
        workers: number of processes. They end at once when the iterator is closed or fails.
        initializer: called in each of them at its start.

    Raises:
        CellSegError: a process was killed, or could not start. What ``function`` raises.
    """
    with _workers(workers, initializer) as submit:
        ahead: deque[Callable[[], T]] = deque()
        for item in items:
            ahead.append(submit(function, item))
            if len(ahead) > 2 * workers:
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()


def in_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a process of its own, whose memory is freed afterwards.

    Raises:
        CellSegError: as in :func:`in_processes`.
    """
    with _workers(1, None) as submit:
        return submit(function, *args, **kwargs)()


@contextmanager
def _workers(count: int, initializer: Callable[[], object] | None) -> Iterator[Callable[..., Callable[[], Any]]]:
    """A function that hands out a call and returns one that waits for its result."""
    others = set(multiprocessing.active_children())
    own: set[BaseProcess] = set()
    # "spawn": forked processes inherit the locks of libraries that run threads, and may hang.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin, (initializer,))

    def submit(function: Callable, *args: object, **kwargs: object) -> Callable[[], Any]:
        future = pool.submit(function, *args, **kwargs)
        own.update(set(multiprocessing.active_children()) - others)
        return partial(_result, future, own)

    try:
        yield submit
    except BrokenProcessPool:
        _end(own)
        raise CellSegError(
            "a worker process was killed or could not start, possibly out of memory: free some, or ask for fewer"
        ) from None
    except BaseException:
        _end(own)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _end(workers: Iterable[BaseProcess]) -> None:
    for process in workers:
        process.terminate()


def _result(future: Future, workers: Iterable[BaseProcess]) -> Any:
    while not wait([future], _PATIENCE).done:
        if any(process.exitcode is not None for process in workers):
            raise BrokenProcessPool
    return future.result()


def _begin(initializer: Callable[[], object] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer()


# The command line as a process that does not outlive the one that starts it.
_START = """import sys; from cellseg_d2.processes import end_with_starter; end_with_starter()
from cellseg_d2.cli import main; sys.argv[0] = "cellseg-d2"; main()"""


def own_command(name: str) -> tuple[str, ...]:
    """The words that start ``cellseg-d2 NAME``, for :class:`subprocess.Popen` with ``stdin=PIPE``.

    It is run by the code of this process (``-P``), never by a package in the working folder, and ends with its starter.
    """
    return sys.executable, "-P", "-c", _START, name


def end_with_starter() -> None:
    """Let this process end when the process at the other end of its standard input ends, however that happens.

    For a process that :class:`subprocess.Popen` started with ``stdin=PIPE``.
    """

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _end_with_parent() -> None:
    """End with the parent: a killed parent cannot end its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
