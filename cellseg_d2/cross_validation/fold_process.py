"""Another process that trains: what it prints, how long it takes, how much memory, and why it failed."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

COLOR = re.compile(r"\x1b\[[0-9;]*m")
# Linux can end a process with the one that started it.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1
# As Detectron2 prints them; "max_mem" is MiB of the GPU.
ITERATION = re.compile(r"\biter: (\d+) .*?total_loss: (\S+)")
GPU_MEMORY = re.compile(r"\bmax_mem: (\d+)M\b")
# A sentence of a tool, or the first line of an exception's message below its traceback.
SAID = re.compile(r"error: |[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit): ")


@dataclass(frozen=True)
class Attempt:
    """One process that trained a fold, to its end or not.

    Attributes:
        started: time in UTC, ISO 8601.
        seconds: how long it ran.
        exit_code: 0 when it finished; the negative signal when it was killed.
        reason: why it did not finish; empty when it did.
        peak_memory_mib: largest resident memory of the process (of the largest one, where it had workers). Linux
            never tells less than what the process that started it had, which a training exceeds.
        gpu_memory_mib: largest memory that PyTorch allocated on the GPU; None without one.
        hardware: GPU, or processor with its number of usable cores.
    """

    started: str
    seconds: float
    exit_code: int
    reason: str
    peak_memory_mib: float
    gpu_memory_mib: float | None
    hardware: str


def run_training(
    command: Sequence[str], folder: Path, title: str, on_end: Callable[[Attempt], None] = lambda attempt: None
) -> Attempt:
    """Run a training to its end, and wait for it.

    What it prints goes to ``console.log`` in ``folder``, a progress bar shows how far it is. It does not outlive this
    process, on Linux not even where that is killed outright.

    Args:
        command: with its arguments; a program that prints as Detectron2 does.
        folder: of the run.
        title: of the progress bar.
        on_end: called with what came of it, also when this process is interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    output = _Output(folder, title)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=_end_with_parent if _PRCTL else None,
    )

    def ended(reason: str | None = None) -> Attempt:
        # Unlike Popen.wait, this tells the memory of this one process.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if reason is None:
            reason = "" if code == 0 else _reason(code, output.tail)
        peak = usage.ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux KiB
        seconds, gpu = round(time.perf_counter() - clock, 1), output.gpu_memory
        attempt = Attempt(started, seconds, code, reason, round(peak, 1), gpu, hardware(gpu))
        on_end(attempt)
        return attempt

    try:
        output.follow(process.stdout)
    except BaseException:  # also Ctrl-C: no process may go on writing to the folder
        process.kill()
        ended("interrupted")
        raise
    return ended()


def _end_with_parent() -> None:
    """Have this process killed when the one that started it ends: two trainings must not get into one folder."""
    _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)


class _Output:
    """What the process of a fold prints: kept in ``console.log``, shown as a progress bar.

    Attributes:
        tail: the last lines.
        gpu_memory: the largest that was printed, in MiB.
    """

    def __init__(self, folder: Path, title: str):
        self._folder, self._title = folder, title
        self.tail: deque[str] = deque(maxlen=200)
        self.gpu_memory: float | None = None

    def follow(self, stream: Iterable[str]) -> None:
        with (
            open(self._folder / "console.log", "a", encoding="utf-8") as log,
            tqdm(desc=self._title, unit="it", leave=False, disable=None) as progress,
        ):
            for colored in stream:
                line = COLOR.sub("", colored)
                log.write(line)
                log.flush()
                self.tail.append(line.rstrip())
                if memory := GPU_MEMORY.search(line):
                    self.gpu_memory = max(self.gpu_memory or 0.0, float(memory[1]))
                if iteration := ITERATION.search(line):
                    progress.total = progress.total or _last_iteration(self._folder)
                    progress.set_postfix_str(f"loss {iteration[2]}", refresh=False)
                    progress.update(int(iteration[1]) + 1 - progress.n)


def _last_iteration(folder: Path) -> int | None:
    """Length of the run, from the configuration that Detectron2 writes at its start."""
    try:
        return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["SOLVER"]["MAX_ITER"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def _reason(code: int, tail: Iterable[str]) -> str:
    if code < 0:
        hint = "; often that means that memory ran out" if -code == signal.SIGKILL else ""
        return f"killed by signal {signal.Signals(-code).name}{hint}"
    lines = [line for line in tail if line]
    said = [line for line in lines if SAID.match(line)] or lines
    return said[-1].removeprefix("error: ")[:500] if said else f"it ended with exit code {code} and without a word"


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
