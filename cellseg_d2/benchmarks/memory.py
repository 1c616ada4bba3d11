"""The memory that a process, or a piece of work in it, takes at most."""

from __future__ import annotations

import gc
import re
import resource
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def resident_peak() -> int:
    """The largest resident memory of this process so far, in bytes."""
    if peak := _status_bytes("VmHWM"):
        return peak  # unlike getrusage's, which begins with that of the process that started this one
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_bytes(work: Callable[[], object]) -> int | None:
    """Bytes that ``work`` takes at most, above what is there before.

    Two numbers can be too small: that of the process, where freed memory is used again, and Python's and NumPy's own,
    which knows nothing of PyTorch. The larger one is returned; None where the system does not tell the first.
    """
    gc.collect()
    try:
        _RESET.write_text("5")  # the peak begins anew
    except OSError:
        return None
    before = _status_bytes("VmRSS")
    work()
    peak = _status_bytes("VmHWM")
    if before is None or peak is None:
        return None
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return max(peak - before, tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def _status_bytes(name: str) -> int | None:
    """What Linux tells of this process; None where it is not told."""
    told = _STATUS.read_text() if _STATUS.is_file() else ""
    found = re.search(rf"^{name}:\s*(\d+) kB", told, re.MULTILINE)
    return 1024 * int(found[1]) if found else None
