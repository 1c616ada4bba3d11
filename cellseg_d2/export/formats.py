"""The formats in which a segmentation can be written.

Each format is a decorated function in a file beside this one, which is imported when a file is written, so that a tool
can list the names in its help at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.errors import CellSegError, did_you_mean
from cellseg_d2.registry import Entry, Registry

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


class Format(Entry):
    """One kind of file: called as ``format(path, segmentation)``, it writes the file atomically.

    The decorator's ``suffix`` ends the file's name, after the name of the image.
    """

    @property
    def suffix(self) -> str:
        """The end of the file's name."""
        return self.details["suffix"]

    def path(self, folder: str | Path, name: str, ending: str | None = None) -> Path:
        """The file for the image ``name`` in a folder; ``ending`` is put for the suffix's own before its first dot."""
        suffix = self.suffix if ending is None else ending + self.suffix[self.suffix.index(".") :]
        return Path(folder) / f"{file_stem(name)}{suffix}"

    def write(self, path: str | Path, segmentation: Segmentation) -> None:
        """Write the file."""
        self(path, segmentation)


FORMATS = Registry("FORMATS", "cellseg_d2.export", "the format", Format)
# Formats with one file for a batch of images; all others have one file per image.
TOGETHER = {
    "submission": ("submission.csv", "the competition's file: one row a cell, masks share no pixel"),
    "csv": ("cells.csv", "measurements of all cells of all images, one row a cell, for Excel, R and pandas"),
    "images": (
        "images.csv",
        "number of cells and share of the image that they cover, one row an image, also where there is none",
    ),
    "coco": ("coco.json", "COCO JSON of all images, masks as compressed run lengths, with scores"),
}


def batch_formats() -> dict[str, str]:
    """The formats in which results of a batch can be saved, with a line about each."""
    together = {name: summary for name, (_, summary) in TOGETHER.items()}
    return together | {name: entry.summary for name, entry in FORMATS.items() if name not in TOGETHER}


def choose_formats(names: Iterable[str]) -> dict[str, Format]:
    """The formats called ``names``, in that order, each once.

    Raises:
        CellSegError: one is not known.
    """
    names = [names] if isinstance(names, str) else list(names)
    unknown = [str(name) for name in names if name not in FORMATS]
    if unknown:
        raise unknown_format(unknown, FORMATS)
    return {name: FORMATS[name] for name in names}


def unknown_format(unknown: Sequence[str], known: Iterable[str]) -> CellSegError:
    """The error of names that are not formats."""
    hint = did_you_mean(unknown[0], known) or "; choose from " + ", ".join(known)
    return CellSegError(f"unknown format {', '.join(unknown)}{hint}")


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
