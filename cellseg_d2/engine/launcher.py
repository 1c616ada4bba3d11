"""Detectron2's launcher, which also returns the result of the work, or says in one sentence why a process ended."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
from detectron2.engine import defaults, launch
from detectron2.utils import comm
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from cellseg_d2.errors import CellSegError, sentence
from cellseg_d2.io.console import make_printing_safe
from cellseg_d2.io.progress import share_no_lock
from cellseg_d2.registry import IMPORTED, import_own

# What torch.distributed raises where the processes cannot meet, or where one of them has gone.
LOST = (
    "DistNetworkError",
    "DistStoreError",
    "DistBackendError",
    "Connection closed by peer",
    "Connection reset by peer",
)
# What imports of Detectron2 say before any code of ours could silence it, see cellseg_d2/cli/common.py.
_QUIET = "ignore:`torch.jit:FutureWarning"


# The arguments of launch_work that say how many processes there are and where they meet, as command lines name them.
MACHINES = ("num_gpus", "num_machines", "machine_rank", "dist_url")


def launch_work(
    work: Callable,
    args: tuple = (),
    *,
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    timeout: timedelta = timedelta(minutes=30),
) -> object:
    """Call ``work(*args)`` in each of ``num_gpus`` × ``num_machines`` processes that know of each other.

    A single one runs in this process. All others are :func:`detectron2.engine.launch`'s: one GPU and NCCL for each, or
    the CPU and Gloo where there is no GPU. When one of this machine's processes ends early, all of them do.

    Args:
        work: a function of a module, so that other processes can import it.
        args: can be pickled.
        num_gpus: processes of each machine.
        num_machines, machine_rank, dist_url: as in Detectron2; for several machines the URL is ``tcp://HOST:PORT`` of
            the first. One machine finds a free port itself.
        timeout: how long a process waits for the others at one point.

    Returns:
        What the first of this machine's processes returned; of several, something small.

    Raises:
        CellSegError: that of the work, whichever process raised it; or there are not so many GPUs, the processes did
            not meet, or one of them was killed.
    """
    if not 0 <= machine_rank < num_machines or num_gpus < 1:
        raise CellSegError(
            f"machine {machine_rank} of {num_machines} with {num_gpus} processes does not exist: --machine-rank counts "
            "from 0, --num-machines and --num-gpus from 1"
        )
    if num_gpus * num_machines == 1:
        return work(*args)
    if torch.cuda.is_available() and num_gpus > torch.cuda.device_count():
        raise CellSegError(f"--num-gpus is {num_gpus}, but this machine has {torch.cuda.device_count()}")
    if num_machines > 1 and dist_url == "auto":
        raise CellSegError("several machines need --dist-url tcp://HOST:PORT of the first, the same on all of them")
    # It would warn of each process that it stops; the sentence raised here says why.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    outcome = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        with _quiet_imports():
            url = dist_url if num_machines > 1 else "auto"
            launch(_run, num_gpus, num_machines, machine_rank, url, (work, args, outcome, IMPORTED), timeout)
    except ProcessExitedException as error:
        raise _ended(error, outcome, num_gpus) from None
    except ProcessRaisedException as error:
        if any(name in str(error) for name in LOST):
            raise CellSegError(
                f"the {num_gpus * num_machines} processes did not meet at {dist_url}, or one of them ended; see what "
                "it says on its machine"
            ) from None
        raise
    except KeyboardInterrupt:  # of this process only: those that it started would go on
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    return outcome.get()[1]


def _run(work: Callable, args: tuple, outcome: multiprocessing.SimpleQueue, imported: Sequence[str]) -> None:
    """Run the work in one process and report its result, or the sentence why it failed."""
    make_printing_safe()
    share_no_lock()
    if not torch.cuda.is_available():
        # Detectron2's trainer puts the model of each process on the GPU of its number, also where there is none.
        defaults.create_ddp_model = partial(defaults.create_ddp_model, device_ids=None)
    try:
        for name in imported:
            import_own(name)
        value = work(*args)
    except (CellSegError, OSError, MemoryError) as error:
        said = sentence(error)
        if said is None:
            raise
        outcome.put(("error", said))
        sys.exit(2)
    if comm.get_local_rank() == 0:
        outcome.put(("value", value))
    # Detectron2 leaves the group as it is, whose threads now and then abort a process that ends before they do.
    torch.distributed.destroy_process_group()


def _ended(error: ProcessExitedException, outcome: multiprocessing.SimpleQueue, processes: int) -> CellSegError:
    """The reason why a process ended; the first, since others may have failed of the same."""
    while not outcome.empty():
        kind, said = outcome.get()
        if kind == "error":
            return CellSegError(said)
    how = f"was killed ({error.signal_name})" if error.signal_name else f"ended with exit code {error.exit_code}"
    hint = ", possibly out of memory" if error.signal_name == "SIGKILL" else ""
    return CellSegError(f"process {error.error_index + 1} of {processes} {how}{hint}; the others were stopped")


@contextmanager
def _quiet_imports():
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, _QUIET]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before
