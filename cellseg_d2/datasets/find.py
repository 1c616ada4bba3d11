"""Find the images that a user or a COCO JSON names."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.image_folder import plane_size
from cellseg_d2.datasets.names import distinct_names, key_of
from cellseg_d2.errors import CellSegError, printable
from cellseg_d2.images.read import find_images, image_size
from cellseg_d2.io.folders import common_folder


def find_inputs(paths: Sequence[str | Path], recursive: bool = False) -> dict[Path, str]:
    """The images that ``paths`` name, and the folder in which the results of each belong.

    Args:
        paths: see :func:`cellseg_d2.images.read.find_images`; besides, the COCO JSON of a data set, which names its
            images. Zarr folders and microscopes' own files are images.
        recursive: whether sub-folders are entered.

    Returns:
        Paths without repetition, in the order of ``paths``, each with its folder relative to the one that was named, or
        to the folder that all those named are in: "" for images that all lie in one, else such as "plate1/day 2". The
        images of a JSON have none: their names are their ids.

    Raises:
        CellSegError: one names no image, or an image that a JSON names is not there.
    """
    found: dict[Path, Path | None] = {}
    for given in map(Path, paths):
        if given.suffix.lower() == ".json" and given.is_file():
            images = sorted(coco_images(given).values())
            if missing := [path for path in images if not path.is_file()]:
                raise CellSegError(f"{given} names {len(missing)} images that are not there, such as {missing[0]}")
        else:
            images = find_images(given, every_kind=True, recursive=recursive)
            found |= {path: _base(given, path) for path in images if path not in found}
            continue
        found |= {path: None for path in images if path not in found}
    bases = {base for base in found.values() if base is not None}
    root = str(common_folder(bases)) if bases else ""
    return {path: "" if base is None else _relative(path, root) for path, base in found.items()}


def find_named(paths: Sequence[str | Path]) -> dict[str, Path]:
    """The images that ``paths`` name, also in sub-folders, by the names that their results go by.

    Raises:
        CellSegError: a path names no image.
    """
    found: dict[Path, Path] = {}
    for given in map(Path, paths):
        found |= {path: _base(given, path) for path in find_images(given, recursive=True) if path not in found}
    root = str(common_folder(found.values())) if found else ""
    keys = [key_of(Path(_relative(path, root)) / path.name) for path in found]
    return dict(zip(distinct_names(keys), found, strict=True))


class ImageSizes(Mapping[str, tuple[int, int]]):
    """``(height, width)`` in pixels by image name, each read from its file when it is asked for.

    Planes of a stack have its size, by the names that their results go by.

    Args:
        files: by name.
    """

    def __init__(self, files: Mapping[str, Path]):
        self._files = files

    def __getitem__(self, name: str) -> tuple[int, int]:
        if name in self._files:
            return image_size(self._files[name])
        if (size := plane_size(self._files, name)) is None:
            raise KeyError(name)
        return size

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _base(given: Path, image: Path) -> Path:
    """The folder that was named: that of a file or of a pattern, down to its first ``*``, counts as named."""
    if given == image:
        return image.parent
    if given.is_dir():
        return given
    fixed = takewhile(lambda part: not glob.has_magic(part), given.parts[:-1])
    return Path(*fixed)


def _relative(image: Path, root: str) -> str:
    folder = os.path.relpath(os.path.dirname(os.path.abspath(image)), root)
    return "" if folder == "." else printable(Path(folder).as_posix())


def coco_images(json_file: str | Path) -> dict[int, Path]:
    """The image files of a COCO JSON by the images' ids, whether they exist or not.

    Raises:
        CellSegError: it cannot be read, or does not name its images.
    """
    return read_coco(json_file, annotated=False).image_paths()
