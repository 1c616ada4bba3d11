"""Names of images that lie in several folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from cellseg_d2.io.folders import leads_back


def key_of(file: str | Path) -> str:
    """A path without its suffix, with ``/`` between folders.

    A text may be a path of another machine, also of Windows: what it begins with there, and ``..``, are left out.
    """
    if isinstance(file, str):
        named = PureWindowsPath(file)
        path = PurePosixPath(*(part for part in named.parts if part not in ("..", named.anchor)))
        return (path.parent / path.stem).as_posix()
    return (file.parent / file.stem).as_posix()


def distinct_names(keys: Sequence[str]) -> list[str]:
    """What images are called where all are in one table or file, by their folders and names such as ``p1/day 2/A1``.

    Returns:
        For each the name alone if no two are the same, so that ids are those of annotations; else folder and name.

    Example:
        >>> distinct_names(["p1/A1", "p2/B1"]), distinct_names(["p1/A1", "p2/A1"])
        (['A1', 'B1'], ['p1/A1', 'p2/A1'])
    """
    names = [key.rpartition("/")[2] for key in keys]
    return names if len(set(names)) == len(names) else list(keys)


def files_within(folder: Path, recursive: bool) -> Iterator[Path]:
    """The files in a folder, sorted, and if asked for those in its sub-folders; nothing that is hidden."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if recursive and not leads_back(path):
                yield from files_within(path, recursive)
        elif path.is_file():
            yield path
