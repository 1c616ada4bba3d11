"""A folder with what a user has corrected: images, cells, the region that counts, and every save of them.

The layout, all of it written whole or not at all::

    project.json                 where the images are, and the model to begin with
    images/NAME.tif              each image that was corrected, as its file was
    corrections/NAME/0001/       the first save of the image NAME: labels.tif (0 is background, other numbers are
                                 cells), counts.png where only a part was looked at (255 counts), save.json
    corrections/NAME/0002/       the next; the last one is trained on
    runs/0001/                   trainings, see cellseg_d2/correction/training.py
    models/0001/                 the model of each
    config.yaml, model.safetensors    the model of the last training: the folder can be named wherever a model can
"""

from __future__ import annotations

import glob
import json
import re
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import tifffile

from cellseg_d2.datasets.coco_json import relative_root
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.label_images import read_label_image
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.io.atomic import atomic_folder, atomic_path, check_writable, write_json_atomic
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.crop import MaskCrop, united
from cellseg_d2.masks.ignore import LARGEST_SHARE, without_cells
from cellseg_d2.masks.overlaps import crops_from_labels, label_dtype

SETTINGS, SAVED = "project.json", "save.json"
FORMAT = "cellseg_d2 project 1"
# The model of a project that has trained none, where the user names none.
FIRST_MODEL = "cells"
# The one category of cells that label images can hold.
CATEGORY = "cell"
# What a training without corrections leaves in the folder of a project.
_TRAINED = ("runs", "models", "config.yaml", "model.safetensors")
_NUMBER = re.compile(r"\d{4,}")


@dataclass(frozen=True)
class Changes:
    """What a save changed.

    Attributes:
        kept: cells with the very same pixels as before.
        changed: cells that overlap one of before by an IoU above 0.5, but are not the same.
        added, removed: all others, of now and of before.
    """

    kept: int
    changed: int
    added: int
    removed: int


@dataclass(frozen=True, eq=False)
class Correction:
    """One save of one image.

    Attributes:
        name: of the image.
        number: of the save, from 1 on.
        labels: ``(H, W)``, 0 for background.
        counts: bool ``(H, W)``, what was looked at; None for all.
        saved: time in UTC, ISO 8601.
        changes: compared with what was shown, or saved, before.
    """

    name: str
    number: int
    labels: np.ndarray
    counts: np.ndarray | None
    saved: str
    changes: Changes


class Project:
    """The folder of a project; see the module.

    Attributes:
        folder: of the project.
        images: the folder of the images that there are to correct.
        first_model: what the first training goes on from.
    """

    def __init__(self, folder: Path, images: ImageFolder, first_model: str):
        self.folder, self.images, self.first_model = folder, images, first_model

    @classmethod
    def open(cls, folder: str | Path, images: str | Path | None = None, model: str | None = None) -> Project:
        """A project, made where there is none.

        Args:
            folder: of the project.
            images: the folder of the images; needed for a new project, and for one whose images have moved.
            model: what the first training goes on from; by default, that of the project, or the shipped one.

        Raises:
            CellSegError: the folder holds something else, or the images cannot be found.
        """
        folder = Path(folder)
        path = folder / SETTINGS
        known = _read_settings(path) if path.is_file() else {}
        if not known:
            if images is None:
                raise CellSegError(
                    f"{folder} is no project of corrections: name the folder of your images with --images to begin one"
                )
            check_folder(folder)
        root = Path(images) if images is not None else folder / known["images"]
        if not root.is_dir():
            hint = "" if images is not None else f"; where {folder} expects its images: name the folder with --images"
            raise CellSegError(f"there is no folder {root}{hint}")
        found = ImageFolder(root)
        if not found.files:
            raise CellSegError(f"there is no image in {root}")
        first = str(model or known.get("model", FIRST_MODEL))
        settings = {"format": FORMAT, "images": relative_root(root, folder), "model": first}
        if settings != known:
            check_writable(folder)
            write_json_atomic(path, settings, indent=1)
        return cls(folder, found, first)

    @property
    def names(self) -> list[str]:
        """Of all images: those of the folder, and those that were corrected and are gone from there."""
        return sorted({*self.images.files, *self.corrected})

    @property
    def corrected(self) -> list[str]:
        """Names of the images with a save."""
        return sorted(path.name for path in (self.folder / "corrections").glob("*") if self._saves(path.name))

    @property
    def uncorrected(self) -> list[str]:
        """Names of the images of the folder without a save."""
        done = set(self.corrected)
        return [name for name in self.images.files if name not in done]

    @property
    def model(self) -> str:
        """What to segment with: the folder itself when it has trained a model, else :attr:`first_model`."""
        return str(self.folder) if (self.folder / "config.yaml").is_file() else self.first_model

    def image_path(self, name: str) -> Path:
        """The file of an image: as it was when it was corrected, else that of the folder.

        Raises:
            CellSegError: there is no such image.
        """
        copied = sorted((self.folder / "images").glob(f"{glob.escape(name)}.*"))
        for path in copied:
            if path.stem == name and not path.name.startswith("."):
                return path
        if name not in self.images.files:
            raise CellSegError(f"there is no image {name!r} in {self.images.root}")
        return self.images.root / self.images.files[name]

    def save(
        self,
        name: str,
        labels: np.ndarray,
        *,
        counts: np.ndarray | None = None,
        before: np.ndarray | None = None,
        notes: dict | None = None,
    ) -> Correction:
        """Save the cells of an image; what was saved before stays.

        Args:
            name: of the image.
            labels: integers ``(H, W)``, 0 for background, every other number one cell.
            counts: bool ``(H, W)``, what was looked at; None for all. Training learns nothing from the rest.
            before: the labels that were shown, to tell what was changed; by default those of the last save, if any.
            notes: what else to keep in ``save.json``, such as the model that had proposed the cells.

        Raises:
            CellSegError: sizes do not fit the image, a label does not fit into 32 bits, or nothing counts.
        """
        source = self.image_path(name)
        shape = read_image(source).shape
        cells = crops_from_labels(labels)
        for what, array in (("labels", labels), ("region that counts", counts), ("labels before", before)):
            if array is not None and array.shape != shape:
                raise CellSegError(
                    f"the {what} of {name} are of {' × '.join(map(str, array.shape))} pixels, its image of "
                    f"{shape[0]} × {shape[1]} (height × width)"
                )
        if labels.max(initial=0) > np.iinfo(np.uint32).max:
            raise CellSegError(f"the labels of {name} go up to {labels.max()}; they must fit into 32 bits")
        if counts is not None:
            counts = counts.astype(bool)
            if counts.all():
                counts = None
            elif not counts.any():
                raise CellSegError(f"nothing of {name} counts: mark a region, or save the whole image")
        if before is None and (last := self.last(name)) is not None:
            before = last.labels
        changes = compare(np.zeros(shape, np.uint8) if before is None else before, labels)
        if not source.is_relative_to(self.folder / "images"):
            with atomic_path(self.folder / "images" / f"{name}{source.suffix}", sync=True) as temporary:
                shutil.copyfile(source, temporary)
        number = max(self._saves(name), default=0) + 1
        saved = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"saved": saved, "cells": len(cells), **asdict(changes), **(notes or {})}
        with atomic_folder(self._place(name, number)) as folder:
            own = labels.astype(label_dtype(int(labels.max(initial=0))))
            tifffile.imwrite(folder / "labels.tif", own, compression="zlib")
            if counts is not None and not cv2.imwrite(str(folder / "counts.png"), counts.astype(np.uint8) * 255):
                raise CellSegError(f"{folder / 'counts.png'} cannot be written")
            (folder / SAVED).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return Correction(name, number, own, counts, saved, changes)

    def last(self, name: str) -> Correction | None:
        """The last save of an image; None where there is none."""
        numbers = self._saves(name)
        return self.load(name, max(numbers)) if numbers else None

    def load(self, name: str, number: int) -> Correction:
        """A save of an image.

        Raises:
            CellSegError: there is none, or it is damaged.
        """
        folder = self._place(name, number)
        if not (folder / SAVED).is_file():
            raise CellSegError(f"there is no save {number} of {name!r} in {self.folder}")
        labels, counts = read_label_image(folder / "labels.tif"), None
        if (folder / "counts.png").is_file():
            counts = read_label_image(folder / "counts.png") > 0
        record = read_json(folder / SAVED)
        try:
            changes = Changes(**{key: record[key] for key in ("kept", "changed", "added", "removed")})
            return Correction(name, number, labels, counts, record["saved"], changes)
        except (KeyError, TypeError):
            raise CellSegError(f"{folder / SAVED} is damaged: remove {folder} to go back to the save before") from None

    def record(self, name: str) -> ImageRecord:
        """The last save of an image as a record, whose file is relative to ``images`` in the project's folder.

        Cells that are mostly outside of what counts are left out and ignored as their surroundings are.
        """
        correction = self.last(name)
        if correction is None:
            raise CellSegError(f"{name!r} was not corrected yet")
        height, width = correction.labels.shape
        path, copies = self.image_path(name), self.folder / "images"
        if not path.is_relative_to(copies):
            raise CellSegError(
                f"{copies} lacks the image {name!r}, which was copied there when it was corrected: put it back, save "
                f"the image once more, or remove {self.folder / 'corrections' / name} to leave it out"
            )
        file_name = path.relative_to(copies).as_posix()
        crops = crops_from_labels(correction.labels)
        ignore = None
        if correction.counts is not None:
            outside = ~correction.counts
            crops = [crop for crop in crops if outside[crop.slices][crop.mask].mean() <= LARGEST_SHARE]
            ignore = united([MaskCrop.from_full(without_cells(outside, crops))])
        cells = [CellAnnotation(crop, CATEGORY) for crop in crops]
        return ImageRecord(name, file_name, height, width, CATEGORY if cells else None, None, cells, None, ignore)

    def records(self) -> list[ImageRecord]:
        """:meth:`record` of all that were corrected."""
        return [self.record(name) for name in self.corrected]

    def _place(self, name: str, number: int) -> Path:
        return self.folder / "corrections" / name / f"{number:04d}"

    def _saves(self, name: str) -> list[int]:
        folders = (self.folder / "corrections" / name).glob("*")
        return sorted(int(path.name) for path in folders if _NUMBER.fullmatch(path.name) and (path / SAVED).is_file())


def compare(before: np.ndarray, after: np.ndarray) -> Changes:
    """What is different between two label images ``(H, W)`` of one image; numbers of cells do not matter.

    Example:
        >>> compare(np.array([[1, 1, 0, 2]]), np.array([[7, 7, 7, 0]]))
        Changes(kept=0, changed=1, added=0, removed=1)
    """
    (old, old_areas), (new, new_areas) = (np.unique(own[own > 0], return_counts=True) for own in (before, after))
    both = (before > 0) & (after > 0)
    pairs, shared = np.unique(np.stack([before[both], after[both]]).astype(np.int64), axis=1, return_counts=True)
    kept = changed = 0
    for (first, second), pixels in zip(pairs.T, shared, strict=True):
        union = old_areas[np.searchsorted(old, first)] + new_areas[np.searchsorted(new, second)] - pixels
        kept += pixels == union
        # Above one half, no cell has two partners.
        changed += bool(0.5 < pixels / union < 1)
    found = int(kept + changed)
    return Changes(int(kept), int(changed), len(new) - found, len(old) - found)


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that is no project and holds anything else, which trainings might write over.

    Raises:
        CellSegError: names it.
    """
    folder = Path(folder)
    if not folder.is_dir() or (folder / SETTINGS).is_file():
        return
    others = sorted(file.name for file in folder.iterdir() if file.name not in _TRAINED and file.name[0] != ".")
    if others:
        raise CellSegError(f"{folder} holds other files, such as {others[0]}: name a new folder for the project")


def next_number(folder: Path) -> int:
    """The first number above those of the sub-folders, from 1 on."""
    return 1 + max((int(path.name) for path in folder.glob("*") if _NUMBER.fullmatch(path.name)), default=0)


def _read_settings(path: Path) -> dict:
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise CellSegError(f"{path} is of no project of corrections that this version knows")
    if not all(isinstance(settings.get(key), str) for key in ("images", "model")):
        raise CellSegError(f"{path} is damaged: it must name images and model")
    return settings
