"""Results of the images of an unfinished batch, one small file each, so that it can be resumed and shared by processes.

The files of the whole batch are written from these files at its end, one image in memory at a time.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.items import Item
from cellseg_d2.io.atomic import atomic_path, write_json_atomic
from cellseg_d2.io.settings import differences
from cellseg_d2.io.text import read_record

_BLOCK, _MOST_BLOCKS = 1 << 20, 64
FOLDER = ".unfinished"
SETTINGS = "settings.json"


@dataclass(frozen=True)
class ImageResult:
    """The result of one image.

    Attributes:
        key: of the image, see :class:`cellseg_d2.inference.items.Item`.
        state: of its file when it was read, see :func:`state_of`.
        counts: class name → number of cells.
        rows: Kaggle RLE of each cell, if they were asked for.
        table: its measurements as CSV with a header, if they were asked for.
        coco: its cells as COCO JSON has them, if they were asked for.
        failed: why there are no results; None if there are.
        size: height and width in pixels.
        content: of its file when it was read, see :func:`content_of`.
        covered: share of the image's pixels that are in cells.
    """

    key: str
    state: list[str | int]
    counts: dict[str, int] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    table: str = ""
    coco: list = field(default_factory=list)
    failed: str | None = None
    content: str = ""
    size: list[int] = field(default_factory=list)
    covered: float = 0.0


class UnfinishedBatch:
    """The results of a batch's finished images, in a hidden folder of ``output`` until all images are done."""

    def __init__(self, output: str | Path):
        self.output = Path(output)
        self.folder = self.output / FOLDER

    def start(self, settings: Mapping[str, object], resume: bool) -> bool:
        """Make the folder.

        Args:
            settings: all that decides about results, as plain nested values.
            resume: keep existing results; otherwise they are removed.

        Returns:
            Whether there is something to resume.

        Raises:
            CellSegError: the existing results were made with other settings; nothing is changed then.
        """
        settings = json.loads(json.dumps(settings, default=str))
        before = read_record(self.folder / SETTINGS) if resume else None
        if before is not None and (changed := differences(settings, before)):
            shown = ", ".join(changed[:4]) + (", …" if len(changed) > 4 else "")
            raise CellSegError(
                f"what is unfinished in {self.output} cannot be resumed, since it has other settings ({shown}): give "
                "the same again, or leave --resume away to do all images anew"
            )
        if before is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json_atomic(self.folder / SETTINGS, settings, indent=1)
        return before is not None

    def get(self, item: Item) -> ImageResult | None:
        """The result of an image; None if there is none, or the image has been changed since."""
        content = read_record(self._path(item))
        try:
            part = ImageResult(**(content or {}))
        except TypeError:
            return None
        return part if part.state == state_of(item.path) else None

    def put(self, item: Item, part: ImageResult) -> None:
        """Write the result of an image atomically."""
        write_json_atomic(self._path(item), asdict(part))

    def remove(self) -> None:
        """Remove the folder: everything is done."""
        shutil.rmtree(self.folder)

    def _path(self, item: Item) -> Path:
        # Names of images may be as long as those of files can be.
        return self.folder / f"{hashlib.sha256(os.fsencode(item.key)).hexdigest()[:32]}.json"


def state_of(image: Path) -> list[str | int]:
    """What tells quickly that a file is another one: its path, size in bytes, and time of the last change in ns.

    Of a folder those of its own entry; [] of what is not there.
    """
    try:
        state = image.stat()
    except OSError:
        return []
    return [os.path.abspath(image), state.st_size, state.st_mtime_ns]


def content_of(image: Path) -> str:
    """A fingerprint (BLAKE2b) of what a file holds, which tells other images of the same name, size and time.

    Of files larger than 64 MiB it is that of 64 blocks spread over them; of a folder, such as a Zarr array, that of the
    files right in it, which describe it. Empty of what cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        for path in sorted(path for path in image.iterdir() if path.is_file()) if image.is_dir() else [image]:
            _add_content(digest, path)
    except OSError:
        return ""
    return digest.hexdigest()


def _add_content(digest: hashlib.blake2b, path: Path) -> None:
    size = path.stat().st_size
    blocks = min(_MOST_BLOCKS, -(-size // _BLOCK))
    with open(path, "rb") as file:
        for number in range(blocks):
            # The first and the last one always, and all of a file that has no more.
            file.seek(number * (size - _BLOCK) // (blocks - 1) if size > _BLOCK * blocks else number * _BLOCK)
            digest.update(file.read(_BLOCK))


def write_tables(path: str | Path, tables: Callable[[], Iterable[str]]) -> None:
    """Write CSV tables below each other, whole or not at all; a column that a table lacks stays empty.

    Args:
        path: of the file.
        tables: gives the tables, each with a header; called twice, so that only one need be in memory at a time.
    """
    columns = list(dict.fromkeys(column for table in tables() for column in next(csv.reader(io.StringIO(table)))))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or ["image"], restval="", lineterminator="\n")
        writer.writeheader()
        for table in tables():
            writer.writerows(csv.DictReader(io.StringIO(table)))
