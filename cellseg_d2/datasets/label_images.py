"""Images with label images: 0 is background, every other number one cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.read import read_label_plane
from cellseg_d2.masks.overlaps import crops_from_labels


def read_label_image(path: str | Path) -> np.ndarray:
    """Read a label image: 8-, 16- or 32-bit PNG, TIFF or BMP; floats if they are whole numbers.

    Returns:
        ``(H, W)``, an integer dtype, without negative values.

    Raises:
        ImageError: the file cannot be read, has colours or several planes, or other values than labels.
    """
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        raise ImageError(f"{path} is a JPEG, whose compression changes labels; save label images as PNG or TIFF")
    labels = read_label_plane(path)
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype.kind not in "uif":
        raise ImageError(f"{path} holds values of type {labels.dtype}; save it as 16- or 32-bit integers")
    if np.issubdtype(labels.dtype, np.floating):
        # Beyond 2^24 neighbouring whole numbers are the same float32, so that labels could have merged.
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any() or np.abs(labels).max(initial=0) > 2**24:
            raise ImageError(f"{path} holds fractions or numbers that are no labels; save it as 16- or 32-bit integers")
        labels = labels.astype(np.int64)
    if labels.size and labels.min() < 0:
        raise ImageError(f"{path} holds negative labels ({labels.min()}); 0 is background, cells are 1, 2, 3 …")
    return labels


class LabelImages:
    """Images and label images in two folders, matched by their stems.

    Attributes:
        path: the folder of labels.
        categories: the one category.
        ids: stems of the images, sorted.
        has_groups: False; label images know no groups.

    Args:
        images: the folder of images.
        labels: the folder of label images.
        category: name of all cells' category.
        drop: stems of images to leave out.
    """

    has_groups = False

    def __init__(self, images: ImageFolder, labels: str | Path, category: str = "cell", drop: tuple[str, ...] = ()):
        self.images = images
        self.labels = ImageFolder(labels)
        self.path = self.labels.root
        self.categories = (category,)
        self.ids = sorted({*images.files, *self.labels.files})
        self.drop = set(drop)
        if not self.labels.files:
            raise CellSegError(f"the folder of labels {labels} holds no image")
        if images.files and not images.allow_missing and not images.files.keys() & self.labels.files.keys():
            raise CellSegError(
                f"no image in {images.root} has the name of a label image in {labels}: "
                f"{next(iter(images.files.values()))} against {next(iter(self.labels.files.values()))}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def records(self, log: FindingLog) -> Iterator[ImageRecord]:
        """Read image by image; a cell's ``row`` is its label.

        Args:
            log: see :meth:`cellseg_d2.datasets.sartorius.SartoriusCsv.records`.
        """
        for name in self.ids:
            if name in self.drop:
                log.note("left out", name, None, "asked to be dropped", action="image dropped")
                continue
            record = self._read(name, log)
            if record is not None:
                yield record

    def _read(self, name: str, log: FindingLog) -> ImageRecord | None:
        label_name = self.labels.files.get(name)
        if label_name is None:
            reason = f"no label image called {name} in {self.labels.root}"
            log.note("missing labels", name, None, reason, repair="image dropped")
            return None
        try:
            labels = read_label_image(self.labels.root / label_name)
        except ImageError as error:
            log.note("unreadable image", name, None, str(error), repair="image dropped")
            return None
        found = self.images.look_up(name, {labels.shape}, log)
        if found is None:
            return None
        numbers = np.unique(labels)
        category = self.categories[0]
        cells = [
            CellAnnotation(crop, category, int(number))
            for number, crop in zip(numbers[numbers > 0], crops_from_labels(labels), strict=True)
        ]
        height, width = labels.shape
        return ImageRecord(name, found[0], height, width, category if cells else None, None, cells)


@DATASET_READERS.register("labels", metavar="DIR")
def open_labels(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """label images, 8, 16 or 32 bits, named as their images"""
    images = options.image_folder()
    if images is None:
        raise CellSegError("label images need the folder of their images: --images DIR")
    return {"": LabelImages(images, path, options.category, options.drop)}
