"""What a batch goes through: images, or planes of stacks, each with a name that its results go by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cellseg_d2.errors import CellSegError, reason_of
from cellseg_d2.images.axes import PlaneChoice, choose_planes
from cellseg_d2.images.lazy import open_stored
from cellseg_d2.images.stored import StoredImage


@dataclass(frozen=True)
class Item:
    """One image of a batch.

    Attributes:
        path: of its file.
        frame: number of its plane in a stack, from 0; None where the image is no stack.
        suffix: what its name has behind that of the file.
        folder: in which its results are, relative to that of a format; "" is that itself.
        failed: why its planes cannot be found; None if they can.
    """

    path: Path
    frame: int | None = None
    suffix: str = ""
    failed: str | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        """The name that results go by: the file's without its ending, and the place in the stack."""
        return self.path.stem + self.suffix

    @property
    def key(self) -> str:
        """Folder and name, which no other image of the batch has."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


def batch_items(paths: Iterable[Path], choice: PlaneChoice, folders: Mapping[Path, str] | None = None) -> list[Item]:
    """The images of files, in their order: one a file, or one a plane where stacks are wanted.

    Only headers are read. A file that cannot be read is one image that has failed.

    Args:
        paths: of the files.
        choice: which planes are wanted.
        folders: in which the results of a file belong; "" by default.
    """
    folders = folders or {}
    if not choice.stack:
        return [Item(path, folder=folders.get(path, "")) for path in paths]
    items: list[Item] = []
    for path in paths:
        folder = folders.get(path, "")
        try:
            with open_stored(path, choice=choice) as stored:
                planes = choose_planes(stored.layout, choice, path)
        except (CellSegError, MemoryError) as error:
            items.append(Item(path, 0, failed=reason_of(error, path), folder=folder))
        else:
            items += [Item(path, number, plane.suffix, folder=folder) for number, plane in enumerate(planes)]
    return items


class OpenStack:
    """Keeps the file of a stack open from one of its planes to the next."""

    def __init__(self, choice: PlaneChoice):
        self._choice = choice
        self._key: tuple[Path, object] | None = None
        self._stored: StoredImage | None = None

    def image(self, item: Item, state: object) -> StoredImage | Path:
        """What an item is read from: its file, opened where it is a stack, anew if its state is another one."""
        if item.frame is None:
            return item.path
        if self._stored is None or self._key != (item.path, state):
            self.close()
            self._stored, self._key = open_stored(item.path, choice=self._choice), (item.path, state)
        return self._stored

    def close(self) -> None:
        """Close the file."""
        if self._stored is not None:
            self._stored.close()
        self._stored = None
