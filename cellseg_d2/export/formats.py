"""The formats in which a segmentation can be written.

Each format is a decorated function in a file beside this one, which is imported when a file is written, so that a tool
can list the names in its help at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.errors import CellSegError, did_you_mean
from cellseg_d2.io.file_names import file_stem
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


def older_files(output: str | Path, names: Iterable[str], written: Collection[Path]) -> list[Path]:
    """Files of formats with a file an image that lie in ``output/<format>`` and are none of those just written."""
    endings = {name: FORMATS[name].suffix[FORMATS[name].suffix.index(".") :] for name in names if name in FORMATS}
    found = {path for name, ending in endings.items() for path in (Path(output) / name).rglob(f"*{ending}")}
    return sorted(path for path in found - set(written) if not path.name.startswith("."))


def unknown_format(unknown: Sequence[str], known: Iterable[str]) -> CellSegError:
    """The error of names that are not formats."""
    hint = did_you_mean(unknown[0], known) or "; choose from " + ", ".join(known)
    return CellSegError(f"unknown format {', '.join(unknown)}{hint}")
