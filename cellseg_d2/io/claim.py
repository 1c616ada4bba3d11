"""Lock a folder for one writing process, and remove incomplete files of the process before."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import check_writable, remove_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"
# By folder: the process, since a fork has a copy of this, and its lock, which lasts as long as the file is open.
_claims: dict[Path, tuple[int, IO[str]]] = {}


def claim(folder: str | Path) -> None:
    """Lock a folder for this process until it ends, and remove incomplete files that a killed process has left there.

    Two processes that write to one folder mix their results. This happens easily if a program that starts others is
    killed and started again while those continue. A folder that this process has already locked may be locked again.

    Raises:
        CellSegError: another process of this machine writes there, or it cannot be written to.
    """
    place = Path(folder).resolve()
    if _is_ours(place):
        return
    check_writable(folder)
    file = _locked(Path(folder))
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    _claims[place] = os.getpid(), file
    for path in remove_leftovers(folder):
        logger.info("removed %s, which was left half-written", path)


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """The same for the block only: see :func:`claim`. A folder that was made for it and stayed empty is removed."""
    folder = Path(folder)
    place = folder.resolve()
    if _is_ours(place):
        yield
        return
    new = not folder.exists()
    claim(folder)
    try:
        yield
    finally:
        _, file = _claims.pop(place)
        with suppress(OSError):  # somebody may have removed the folder
            (folder / LOCK).unlink(missing_ok=True)  # while it is locked: who waits for it looks again
            if new:
                folder.rmdir()
        file.close()


def _is_ours(place: Path) -> bool:
    return place in _claims and _claims[place][0] == os.getpid()


def _locked(folder: Path) -> IO[str]:
    while True:
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  the lock lasts as long as it is open
        try:
            # Unlike flock's, these locks are not handed on to data loading workers, which survive a kill for some time.
            if fcntl:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            other = file.read().strip()
            file.close()
            raise CellSegError(
                f"process {other or 'unknown'} is writing to {folder}: wait for it or end it, or choose another folder"
            ) from None
        except OSError:  # a file system without locks
            logger.warning("%s is on a file system without locks: see that nothing else writes there", folder)
        with suppress(OSError):
            if not fcntl or os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK)):
                return file
        file.close()  # the one before has removed it meanwhile
