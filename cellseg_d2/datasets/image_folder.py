"""Look up annotated images in a folder, and check that they can be read and have the right size."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.names import distinct_names, files_within, key_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.errors import ImageError, check_name
from cellseg_d2.images.lazy import open_stored
from cellseg_d2.images.read import IMAGE_SUFFIXES, read_image
from cellseg_d2.io.outputs import is_own_result

# Behind the name of a stack, the place of a plane along an axis.
_PLACE = re.compile(r"_[tz]?[0-9]{3,}$")


def places_beside(folder: Path) -> tuple[Path, Path, Path]:
    """Where the images of annotations in ``folder`` may be: there, and in a folder ``images`` in it or beside it."""
    return folder, folder / "images", folder.parent / "images"


def images_not_found(annotations: Path, named: Path | None = None) -> CellSegError:
    """The error of annotations whose images are neither in the folder that they name nor in :func:`places_beside`."""
    where = "neither beside it nor in a folder 'images'" if named is None else f"not in {named}, which it names"
    return CellSegError(
        f"the images of {annotations} are {where}: name their folder with "
        "--images (or --allow-missing-images, to convert the masks alone)"
    )


def plane_size(files: Mapping[str, Path], name: str) -> tuple[int, int] | None:
    """``(height, width)`` in pixels of a plane, such as ``movie_t003``, of a stack among image files by name.

    None where there is none: no file has a name that this one begins with, or only an image of one plane has.
    """
    stem = name
    while (place := _PLACE.search(stem)) is not None:
        stem = stem[: place.start()]
        if stem in files:
            with open_stored(files[stem]) as stored:
                layout = stored.layout
            is_stack = any(
                length > 1 for axis, length in zip(layout.names, layout.shape, strict=True) if axis not in "YXSC"
            )
            return (layout.height, layout.width) if is_stack else None
    return None


class ImageFolder:
    """Images by name.

    Attributes:
        root: the folder.
        files: paths relative to it by name: the file's without suffix, and with its folder if several are called so.

    Args:
        root: the folder.
        allow_missing: keep images without a file, with the size that their annotations give.
        recursive: whether images may lie in sub-folders.
        keep: says whether a file is one of the images; None takes all files with the suffix of an image. Pictures and
            label images that this project has written never are.

    Raises:
        CellSegError: the folder does not exist, or two files of one folder share a stem.
    """

    def __init__(
        self,
        root: str | Path,
        allow_missing: bool = False,
        recursive: bool = False,
        keep: Callable[[Path], bool] | None = None,
    ):
        self.root = Path(root)
        self.allow_missing = allow_missing
        if not self.root.is_dir():
            raise CellSegError(f"the folder of images {root} {'is a file' if self.root.exists() else 'does not exist'}")
        found: dict[str, str] = {}
        for path in files_within(self.root, recursive):
            if path.suffix.lower() not in IMAGE_SUFFIXES or (keep is not None and not keep(path)):
                continue
            if is_own_result(path):
                continue
            file = path.relative_to(self.root).as_posix()
            other = found.setdefault(key_of(Path(file)), file)
            if other != file:
                raise CellSegError(f"{root} has two images called {path.stem}: {other} and {file}; remove one")
        names = distinct_names(list(found))
        self.files: dict[str, str] = dict(zip(names, found.values(), strict=True))
        self._names = dict(zip(found, names, strict=True))
        for key, name in list(self._names.items()):  # of OME-TIFF, many tools take ".ome" for a part of the suffix
            self._names.setdefault(key.removesuffix(".ome"), name)

    @classmethod
    def of_names(cls, root: str | Path, names: Mapping[str, str], allow_missing: bool = False) -> ImageFolder:
        """A folder of which only the named images are used.

        Args:
            root: the folder.
            names: paths relative to it by the images' ids.
            allow_missing: as for the class.
        """
        folder = cls(root, allow_missing, keep=lambda _: False)
        folder.files = dict(names)
        return folder

    def name_of(self, key: str) -> str | None:
        """The name of the image at a relative path without suffix, such as ``p1/A1``; None if there is none."""
        return self._names.get(key)

    def expect(self, ids: Collection[str]) -> None:
        """Refuse a folder without any of the images: it must be the wrong one.

        Raises:
            CellSegError: no image with one of the ``ids`` is there and missing ones are not allowed.
        """
        if not self.allow_missing and ids and not any(image in self.files for image in ids):
            raise CellSegError(
                f"{self.root} holds none of the {len(ids)} annotated images, such as {next(iter(ids))}; "
                f"name the right folder, or use --allow-missing-images to convert the masks alone"
            )

    def unexpected(self, ids: Iterable[str]) -> list[str]:
        """Relative paths of the images that are not among ``ids``."""
        known = set(ids)
        return [name for stem, name in self.files.items() if stem not in known]

    def look_up(
        self, image: str, sizes: set[tuple[int, int]], log: FindingLog
    ) -> tuple[str, tuple[int, int] | None] | None:
        """File name and size ``(height, width)`` of an image.

        Args:
            image: its id.
            sizes: those that its annotations give; empty when they give none.
            log: collects what is wrong.

        Returns:
            The path relative to the folder and the size by the file, None instead of the size when the file is missing
            and that is allowed. None for an image that cannot be converted, which has been logged.
        """
        name = self.files.get(image)
        if name is None:
            reason = f"no image called {image} in {self.root}"
            if self.allow_missing:
                log.note("missing image", image, None, reason, action="kept without a file")
                return f"{image}.png", plane_size({own: self.root / file for own, file in self.files.items()}, image)
            log.note("missing image", image, None, reason, repair="image dropped")
            return None
        try:
            check_name(Path(name))
            # Its pixels too, not only its header: a truncated file would else stop a training hours later.
            size = read_image(self.root / name).shape
        except ImageError as error:
            log.note("unreadable image", image, None, str(error), repair="image dropped")
            return None
        if sizes and size not in sizes:
            given = " or ".join(f"{width} × {height}" for height, width in sorted(sizes))
            reason = f"{name} has {size[1]} × {size[0]} pixels, its annotations are for {given}"
            log.note("wrong size", image, None, reason, repair="image dropped")
            return None
        return name, size
