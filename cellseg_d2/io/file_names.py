"""Names of files that all systems take, and take for different ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path

from cellseg_d2.errors import CellSegError


def file_stem(name: str) -> str:
    """A name as the beginning of a file's name that all systems take: ``/ \\ : * ? " < > |`` and the like become ``_``.

    Example:
        >>> file_stem("plate 1/A5: day 2")
        'plate 1_A5_ day 2'
    """
    stem = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name)
    return stem.lstrip(".") or "image"


def folder_stem(folder: str) -> Path:
    """A relative folder as one that all systems take, see :func:`file_stem`."""
    return Path(*(file_stem(part) for part in folder.split("/"))) if folder else Path()


def check_distinct(
    paths: Iterable[str | Path], reserved: Iterable[str] = (), folders: Iterable[str] | None = None
) -> None:
    """Refuse images whose results would have the same file name, on this system or on one that they are copied to.

    Args:
        paths: paths of the images. Their results are named by :func:`file_stem` of their names without suffix.
        reserved: names of other files beside the results, without suffix.
        folders: in which the results of each image are, where they are not all in one.

    Raises:
        CellSegError: names two of them.
    """
    known: dict[tuple[str, ...], Path | str] = {(_one_name(name),): name for name in reserved}
    for path, folder in zip(map(Path, paths), repeat("") if folders is None else folders, strict=False):
        other = known.setdefault((*map(_one_name, filter(None, folder.split("/"))), _one_name(path.stem)), path)
        if other is path:
            continue
        if isinstance(other, str):
            raise CellSegError(f"the result of {path} would have the name of another one, {other}; rename the image")
        if other.stem == path.stem:
            raise CellSegError(f"{other} and {path} would share the image id {path.stem!r}; rename one")
        raise CellSegError(
            f"the results of {other} and {path} would be files of one name, {file_stem(path.stem)}, at least where "
            "upper and lower case are the same; rename one"
        )


def _one_name(name: str) -> str:
    """The same for all names that some system takes for one: of other case, or with accents apart from letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", file_stem(name)).casefold())
