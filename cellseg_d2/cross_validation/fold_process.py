"""Run a training in another process: show its progress, and measure its time, memory and reason of failure."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import Progress, track
from cellseg_d2.io.text import read_yaml

# Seconds between two looks at a training.
_PATIENCE = 0.2


@dataclass(frozen=True)
class Attempt:
    """One process that trained a fold, to its end or not.

    Attributes:
        started: time in UTC, ISO 8601.
        seconds: how long it ran.
        exit_code: 0 when it finished; the negative signal when it was killed.
        reason: why it did not finish; empty when it did.
        peak_memory_mib: largest resident memory of the process (of the largest one, where it had workers). Linux never
            reports less than the starting process had, which a training exceeds. None where the system, such as
            Windows, does not tell.
        gpu_memory_mib: largest memory that PyTorch allocated on the GPU; None without one.
        hardware: GPU, or processor with its number of usable cores.
    """

    started: str
    seconds: float
    exit_code: int
    reason: str
    peak_memory_mib: float | None
    gpu_memory_mib: float | None
    hardware: str


def run_training(
    command: Sequence[str],
    folder: Path,
    title: str,
    on_end: Callable[[Attempt], None] = lambda attempt: None,
    environment: Mapping[str, str] | None = None,
) -> Attempt:
    """Run a training to its end, and wait for it.

    What it prints goes to ``console.log`` in ``folder``; a progress bar shows how far its ``metrics.json`` is.

    Args:
        command: with its arguments. Its standard input is closed when this process ends, however that happens: see
            :func:`cellseg_d2.processes.end_with_starter`.
        folder: folder of the run.
        title: title of the progress bar.
        on_end: called with the outcome, also when this process is interrupted.
        environment: variables beside those of this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, clock, now = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter(), time.time()
    log = folder / "console.log"
    before = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as console:
        variables = {**os.environ, "NO_COLOR": "1", **(environment or {})}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=console, stderr=subprocess.STDOUT, env=variables
        )
    peak, interrupted = None, False
    try:
        with track(None, title, "iteration") as progress:
            while process.returncode is None:
                _show(progress, folder)
                time.sleep(_PATIENCE)
                peak = _poll(process)
    except BaseException:  # also Ctrl-C: no process may go on writing to the folder
        interrupted = True
        process.kill()
        while process.returncode is None:
            peak = _poll(process)
            time.sleep(0.01)
        raise
    finally:
        code = 1 if process.returncode is None else process.returncode  # None: interrupted while it was being ended
        process.stdin.close()
        reason = "interrupted" if interrupted else "" if code == 0 else _reason(code, _lines(log, before))
        gpu = _last_metrics(folder).get("gpu_memory_mib") if _is_newer(folder / "metrics.json", now) else None
        seconds = round(time.perf_counter() - clock, 1)
        attempt = Attempt(started, seconds, code, reason, peak, gpu, hardware(gpu))
        on_end(attempt)
    return attempt


def _poll(process: subprocess.Popen) -> float | None:
    """Set the exit code of a process that has ended; returns the peak of its memory in MiB, None where not known."""
    if not hasattr(os, "wait4"):  # Windows
        process.poll()
        return None
    # Unlike Popen.poll, this tells the memory of this one process.
    number, status, usage = os.wait4(process.pid, os.WNOHANG)
    if number == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return round(usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024), 1)  # macOS: bytes, Linux: KiB


def _show(progress: Progress, folder: Path) -> None:
    """Update the bar to the last iteration that the run has recorded."""
    if (metrics := _last_metrics(folder)) and metrics["iteration"] + 1 != progress.n:
        progress.total = progress.total or _last_iteration(folder)
        progress.set_postfix_str(f"loss {metrics['total_loss']:.4g}", refresh=False)
        progress.update(metrics["iteration"] + 1 - progress.n)


def _last_metrics(folder: Path) -> dict:
    """The newest line of ``metrics.json`` about training; empty where there is none."""
    try:
        lines = _lines(folder / "metrics.json", -(1 << 14))
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except ValueError:  # cut off at either end
            continue
        if isinstance(values, dict) and {"iteration", "total_loss"} <= values.keys():
            return values
    return {}


def _lines(path: Path, start: int) -> list[str]:
    """The lines of a file from byte ``start`` on; a negative ``start`` counts from the end."""
    with open(path, "rb") as file:
        file.seek(start if start >= 0 else max(0, os.fstat(file.fileno()).st_size + start))
        return file.read().decode("utf-8", errors="replace").splitlines()


def _is_newer(path: Path, seconds: float) -> bool:
    return path.exists() and path.stat().st_mtime >= seconds - 1


def _last_iteration(folder: Path) -> int | None:
    """Length of the run, from the configuration that it writes at its start."""
    try:
        return read_yaml(folder / "config.yaml")["SOLVER"]["MAX_ITER"]
    except (CellSegError, KeyError, TypeError):
        return None


def _reason(code: int, said: Sequence[str]) -> str:
    """Why a process ended: its signal, the sentence of a tool, the message below a traceback, or its last line."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by signal {name}{'; often that means that memory ran out' if name == 'SIGKILL' else ''}"
    lines = [line for line in said if line]
    for index in reversed(range(len(lines))):
        if lines[index].startswith("error: "):
            return lines[index].removeprefix("error: ")[:500]
        if lines[index].startswith("Traceback "):
            return next(line for line in [*lines[index + 1 :], ""] if not line.startswith(" "))[:500]
    return lines[-1][:500] if lines else f"it ended with exit code {code} without a message"


def hardware(gpu_memory: float | None) -> str:
    """The GPU's name if memory on it was used; otherwise the processor's, with the number of cores that may be used."""
    if gpu_memory is not None and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.+)", info.read_text(encoding="utf-8"))):
        name = found[1].strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} core" + ("" if cores == 1 else "s")
