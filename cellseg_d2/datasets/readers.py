"""The sources that ``convert-to-coco`` reads, each a decorated function in a file of its own in this folder.

Example, for a format in which a file lists images and masks::

    @DATASET_READERS.register("mine", metavar="FILE")
    def open_mine(path: Path, options: ReaderOptions) -> dict[str, Source]:
        \"\"\"a file of mine\"\"\"
        return {"": MySource(path, options.image_folder(), options.drop)}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cellseg_d2.registry import Entry, Registry

if TYPE_CHECKING:
    from cellseg_d2.datasets.findings import FindingLog
    from cellseg_d2.datasets.image_folder import ImageFolder
    from cellseg_d2.datasets.records import ImageRecord


class Source(Protocol):
    """Annotated images that can be read one by one; the result of a reader.

    Attributes:
        path: path of the annotations.
        images: the folder of the images; None where there is none.
        categories: names of the categories, in the order of their ids.
        ids: names of the images.
        has_groups: whether it is known which images look alike.
        drop: ids of images to leave out.
    """

    @property
    def path(self) -> Path: ...
    @property
    def images(self) -> ImageFolder | None: ...
    @property
    def categories(self) -> Sequence[str]: ...
    @property
    def ids(self) -> list[str]: ...
    @property
    def has_groups(self) -> bool: ...
    @property
    def drop(self) -> set[str]: ...
    def __len__(self) -> int: ...

    def records(self, log: FindingLog) -> Iterator[ImageRecord]: ...


@dataclass(frozen=True)
class ReaderOptions:
    """Options of readers; each reader uses those that concern it.

    Attributes:
        images: folder of the images.
        allow_missing: whether masks are read whose image has no file.
        drop: ids of images to leave out.
        category: name of the category of cells for which the source gives none.
        by_type: whether each kind of cells becomes a category.
        cell_types: the types that may occur, in the order of their category ids; empty means the reader's own.
        keep_empty: whether images without annotations are images without cells.
        only_labelled: whether images without a label image are left out.
        label_ending: what label images have behind their image's name; None is any of the usual ones.
        background, components: see :class:`cellseg_d2.datasets.label_images.LabelRules`.
        recursive: whether sub-folders of annotations and images are entered, in which images may have the same names.
    """

    images: Path | None = None
    allow_missing: bool = False
    drop: tuple[str, ...] = ()
    category: str = "cell"
    by_type: bool = False
    cell_types: tuple[str, ...] = ()
    keep_empty: bool = False
    only_labelled: bool = False
    label_ending: str | None = None
    background: int | None = None
    components: str = "check"
    recursive: bool = False

    def image_folder(self) -> ImageFolder | None:
        """The folder of the images, where it was named."""
        from cellseg_d2.datasets.image_folder import ImageFolder  # reads images, which help texts need not

        return None if self.images is None else ImageFolder(self.images, self.allow_missing, self.recursive)


class Reader(Entry):
    """Called as ``reader(path, options)``; gives a :class:`Source` for each part, for one without parts under ``""``.

    The decorator's ``metavar`` says in help texts what the path is, ``FILE`` or ``DIR``.
    """


DATASET_READERS = Registry("DATASET_READERS", "cellseg_d2.datasets", "the dataset reader", Reader)
