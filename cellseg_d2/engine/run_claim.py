"""One training at a time in a folder, and nothing half-written from the one before."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import IO

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import check_writable, remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

LOCK = ".lock"
_claims: list[IO] = []  # open until this process ends, however that happens


def claim_run(folder: str | Path) -> None:
    """Take the folder of a run for this process, and remove what a killed process has left there half-written.

    Two trainings in one folder would overwrite each other's checkpoints. That happens easily when a program that starts
    trainings is killed and started again, while the training goes on.

    Raises:
        CellSegError: another process of this machine trains there, or it cannot be written to.
    """
    check_writable(folder)
    file = open(Path(folder) / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  the lock lasts as long as it is open
    try:
        # Unlike flock's, these locks are not handed on to data loading workers, which survive a kill for some seconds.
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        other = file.read().strip()
        file.close()
        raise CellSegError(
            f"process {other or 'unknown'} is training in {folder}: wait for it or end it, or choose another OUTPUT_DIR"
        ) from None
    except OSError:  # a file system without locks
        logger.warning("%s is on a file system without locks: see that no other training writes there", folder)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    _claims.append(file)
    for path in remove_leftovers(folder):
        logger.info("removed %s, which was left half-written", path)
