"""Write files and folders atomically: an incomplete file never appears under its final name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from cellseg_d2.errors import CellSegError

# Name of a temporary file of `atomic_path`; the number is that of the process.
TEMPORARY = re.compile(r"\..+\.(\d{1,9})\.part(\.[^.]*)?", re.DOTALL)
# Largest number of bytes of a name on nearly all file systems, and of a temporary name.
LONGEST_NAME, _LONGEST_TEMPORARY = 255, 120
# The files of the current `atomic_set`, by their final paths, and whether to wait for the disk.
_set: ContextVar[dict[Path, tuple[Path, bool]] | None] = ContextVar("_set", default=None)


@contextmanager
def atomic_path(path: str | Path, sync: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and is removed when it does not.

    The folder is created if needed. The temporary name keeps the suffix, which writers of images need.
    :func:`remove_leftovers` removes the temporary files of killed processes.

    Args:
        path: path of the file.
        sync: wait until the disk has the content before the file takes its name, and until it has the name. A killed
            process harms no file without that, but a machine that loses its power may.

    Example:
        >>> with atomic_path("out/plot.png") as temporary:  # doctest: +SKIP
        ...     figure.savefig(temporary)
    """
    path, files = Path(path), _set.get()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        if sync:
            _sync(temporary)
        if files is not None:
            files[path] = temporary, sync
            return
        _rename(temporary, path, path)
        if sync:
            _sync(path.parent)
    finally:
        if files is None or path not in files:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_set() -> Iterator[None]:
    """Write several files as one: all that :func:`atomic_path` writes in the block get their names at its end.

    If one of them fails, or the block raises, none is replaced, and the earlier files are restored. A kill between the
    first and the last of them leaves some files missing, but never new ones beside old ones. A set within a set is a
    part of it.

    Example:
        >>> with atomic_set():  # doctest: +SKIP
        ...     write_json_atomic("out/train.json", train)
        ...     write_json_atomic("out/val.json", val)
    """
    if _set.get() is not None:
        yield
        return
    files: dict[Path, tuple[Path, bool]] = {}
    token = _set.set(files)
    try:
        try:
            yield
        finally:
            _set.reset(token)
        _take_places({path: temporary for path, (temporary, _) in files.items()})
        for folder in {path.parent for path, (_, sync) in files.items() if sync}:
            _sync(folder)
    finally:
        for temporary, _ in files.values():
            temporary.unlink(missing_ok=True)


def _rename(source: Path, target: Path, shown: Path) -> None:
    """Let errors name ``shown`` instead of a temporary file."""
    try:
        os.replace(source, target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(shown)) from None


def _take_places(files: Mapping[Path, Path]) -> None:
    """Give all files their names, or restore everything."""
    if len(files) == 1:  # is at no moment missing
        for path, temporary in files.items():
            _rename(temporary, path, path)
        return
    before: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path in files:
            if path.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            if os.path.lexists(path):
                waiting = _temporary(path, "-before")
                _rename(path, waiting, path)
                before[path] = waiting
        for path, temporary in files.items():
            _rename(temporary, path, path)
            placed.append(path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        for path, waiting in before.items():
            os.replace(waiting, path)
        raise
    for waiting in before.values():
        waiting.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well, and is removed when it fails.

    What killed processes have left of the same folder is removed before.

    Args:
        path: path of the folder; no link. One that is there stays as it was until the new one is whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(left for left in path.parent.glob(".*.part*") if left.name == _temporary_name(path, _process_of(left)))
    building, older = _temporary(path), _temporary(path, "-older")
    building.mkdir()
    try:
        yield building
        if path.exists():
            _rename(path, older, path)
        try:
            _rename(building, path, path)
        except BaseException:
            if older.exists():
                os.replace(older, path)
            raise
    finally:
        for folder in (building, older):
            shutil.rmtree(folder, ignore_errors=True)


def _temporary(path: Path, what: str = "") -> Path:
    """A path beside ``path``, another one for each ``what``."""
    return path.with_name(_temporary_name(path.with_name(f"{path.stem}{what}{path.suffix}")))


def _temporary_name(path: Path, process: int | None = None) -> str:
    """Of a file whose own name may be as long as names can be, so that no more can be added to it."""
    process = os.getpid() if process is None else process
    name = f".{path.stem}.{process}.part{path.suffix}"
    if len(os.fsencode(name)) <= _LONGEST_TEMPORARY:
        return name
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]
    return f".{digest}.{process}.part{path.suffix if len(os.fsencode(path.suffix)) < 16 else ''}"


def check_name_length(path: Path) -> None:
    """Refuse a file to be written whose name is longer than file systems take.

    Raises:
        CellSegError: the message says by how much.
    """
    if (over := len(os.fsencode(path.name)) - LONGEST_NAME) > 0:
        raise CellSegError(
            f"its result would have a name of {LONGEST_NAME + over} bytes, and {LONGEST_NAME} are possible: shorten "
            f"the image's name by {over}"
        )


def _sync(path: Path) -> None:
    if os.name != "posix":  # Windows neither opens folders nor flushes what was opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove incomplete files that killed processes of this machine have left in a folder and its sub-folders.

    Returns:
        What was removed; files of processes that still run are not.
    """
    return _remove(Path(folder).rglob(".*.part*"))


def _remove(paths: Iterable[Path]) -> list[Path]:
    """Remove those of the files and folders that killed processes have left; returns them."""
    removed = []
    for path in sorted(paths):
        process = _process_of(path)
        if process is None or _is_running(process):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _process_of(path: Path) -> int | None:
    """The number of the process to which a temporary file or folder belongs; None of any other."""
    match = TEMPORARY.fullmatch(path.name)
    return int(match[1]) if match else None


def _is_running(process: int) -> bool:
    if os.name != "posix":  # where this call would end the process
        return True
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def unpacked_size(path: str | Path) -> int:
    """Bytes of all that a ZIP archive claims to hold, as ``.npz`` and PyTorch's files are; nothing is unpacked."""
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def check_writable(folder: str | Path) -> None:
    """Create a folder and try to write into it, so that a failure is found before hours of work.

    Raises:
        CellSegError: it cannot be made or written to.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise CellSegError(f"{folder} is a file; name a folder for the results")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CellSegError(f"results cannot be written to {folder}: {error.strerror}; choose another folder") from None


def check_files_writable(paths: Iterable[str | Path | None]) -> None:
    """Find before hours of work that files cannot be written at their end; nothing is created.

    Args:
        paths: the files. None stands for an option that was not given.

    Raises:
        CellSegError: one is a folder, or its folder, or the next above it that exists, cannot be written to.
    """
    for path in paths:
        if path is None:
            continue
        if Path(path).is_dir():
            raise CellSegError(f"{path} is a folder; name a file for the results")
        check_writable(next(folder for folder in Path(path).absolute().parents if folder.exists()))


def write_text_atomic(path: str | Path, text: str, sync: bool = False) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically; ``sync`` as for :func:`atomic_path`."""
    with atomic_path(path, sync) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: str | Path, value: object, indent: int | None = None, sync: bool = False) -> None:
    """Write ``value`` as JSON to ``path`` atomically; ``sync`` as for :func:`atomic_path`."""
    write_text_atomic(path, json.dumps(value, indent=indent) + "\n", sync)
