"""Property tests with a number of cases that is promised, and a time that no single case may take."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from cellseg_d2.errors import CellSegError

# `CELLSEG_FUZZ=20 pytest tests/fuzz` looks at twenty times as many cases.
FACTOR = int(os.environ.get("CELLSEG_FUZZ", "1"))
LONGEST = 20  # seconds of processor time for one case, which needs milliseconds
CASES: dict[str, int] = {}  # of each test, for the sum that tests/fuzz/test_number.py promises


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer; processor time, since machines may be busy."""

    def stop(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(cases: int, strategy: SearchStrategy) -> Callable:
    """Call a test ``(folder, case)`` for each of so many cases.

    A CellSegError is a good answer; any other exception is none. Both answers must occur, else the cases would not be
    worth their name.
    """

    def decorate(test: Callable) -> Callable:
        CASES[f"{test.__module__}.{test.__name__}"] = cases

        def run(tmp_path: Path) -> None:
            answers = Counter()

            @settings(max_examples=cases * FACTOR, deadline=None, suppress_health_check=list(HealthCheck))
            @given(strategy)
            def each(case):
                with time_limit(LONGEST):
                    try:
                        test(tmp_path, case)
                    except CellSegError:
                        answers["refused"] += 1
                    else:
                        answers["read"] += 1

            each()
            assert answers.total() >= cases
            assert answers["read"] > 0, answers
            assert answers["refused"] > 0, answers

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate
