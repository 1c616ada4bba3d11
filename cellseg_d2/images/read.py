"""Finding and reading microscopy images: PNG, JPEG, BMP and TIFF, always as one grey plane."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cellseg_d2.errors import CellSegError, no_memory
from cellseg_d2.images.axes import choose_planes
from cellseg_d2.images.errors import ImageError, check_file, clear_errors
from cellseg_d2.images.microscope import MICROSCOPE_SUFFIXES
from cellseg_d2.images.other_tools import results_of_others
from cellseg_d2.images.pillow import grey_of_pillow, labels_of_pillow, with_pillow
from cellseg_d2.images.tiff import TIFF_SUFFIXES, TiffImage
from cellseg_d2.images.zarr_metadata import ZARR_FILES
from cellseg_d2.io.folders import leads_back
from cellseg_d2.io.outputs import is_own_result

logger = logging.getLogger(__name__)
_Read = TypeVar("_Read")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", *TIFF_SUFFIXES, ".bmp")
ZARR_SUFFIX = ".zarr"
# Of images too, which are not read from folders.
OTHER_SUFFIXES = {
    *(".webp", ".gif", ".jp2", ".heic", ".avif", ".npy", ".npz", ".h5", ".hdf5", ".nrrd", ".mha", ".nii", ".dcm"),
    *(".czi", ".nd2", ".lif", ".lsm", ".oib", ".oif", ".vsi", ".ims", ".dv", ".svs", ".ndpi", ".mrxs", ".stk"),
}


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as one grey plane.

    Colours (also palettes) become grey with the weights of ITU-R BT.601; transparency is ignored. Colour PNGs of
    16 bits per channel are read with 8 bits. A TIFF whose zero is white is inverted.

    Args:
        path: of a PNG, JPEG, BMP or TIFF file.

    Returns:
        ``(H, W)`` uint8, uint16 or float32, as in the file. Black and white becomes 0 and 255, other integers become
        uint16 where their values fit and float32 where not, doubles float32. Not-a-number pixels stay as they are.

    Raises:
        ImageError: the file is missing, empty, truncated, no image, or holds several planes.
    """
    return _read(path, lambda tiff: tiff.grey(_only_place(tiff)), grey_of_pillow)


def read_label_plane(path: str | Path) -> np.ndarray:
    """Read a label image, whose values are numbers of objects and no intensities.

    Args:
        path: as of :func:`read_image`. In a palette image the palette's indices are the labels.

    Returns:
        ``(H, W)`` of the file's own dtype, integer or floating.

    Raises:
        ImageError: as of :func:`read_image`, or the image has colours.
    """
    return _read(path, lambda tiff: tiff.labels(_only_place(tiff)), labels_of_pillow)


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` in pixels, from the file's header alone.

    Raises:
        ImageError: the file is missing, empty, no image, or holds several planes.
    """
    return _read(path, _size_of_tiff, lambda image: image.size[::-1])


def find_images(
    paths: Iterable[str | Path] | str | Path, every_kind: bool = False, recursive: bool = False
) -> list[Path]:
    """The image files that ``paths`` name.

    Pictures and label images that this project has written are left out of folders and patterns, with a word, and so
    are those that other tools have written beside images.

    Args:
        paths: one or several of: a file (taken as it is), a folder (its files with one of :data:`IMAGE_SUFFIXES`, not
            those of its sub-folders), a glob pattern (``**`` enters sub-folders). A path that exists is never taken
            for a pattern, so that names such as ``astros[cereb]_1.png`` work.
        every_kind: whether Zarr folders and microscopes' own files are images, too, which
            :func:`cellseg_d2.images.lazy.open_source` reads.
        recursive: whether sub-folders are entered, but for hidden ones.

    Returns:
        Sorted paths, every file once.

    Raises:
        CellSegError: a path matches no image.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: dict[Path, Path] = {}
    own: list[Path] = []
    others: list[Path] = []
    passed: list[Path] = []
    for given in paths:
        path, before = Path(given), len(own)
        if path.is_dir() and not (every_kind and is_zarr(path)):
            inside = list(_inside(path, every_kind, recursive))
            matches = _without_own((p for p in inside if _is_image_name(p, every_kind)), own)
            passed = [p for p in inside if _is_passed_over(p, every_kind) and not (recursive and p.is_dir())]
        elif path.exists():
            matches = [path]
        else:
            named = map(Path, glob.glob(str(given), recursive=True))
            matches = _without_own((p for p in named if _is_image_name(p, every_kind)), own)
        if not path.is_file():
            foreign = results_of_others(matches)
            others += sorted(foreign)
            matches = [match for match in matches if match not in foreign]
        if not matches:
            kinds = " ".join((*IMAGE_SUFFIXES, *((*MICROSCOPE_SUFFIXES, ZARR_SUFFIX) if every_kind else ())))
            reason = "holds no image" if path.is_dir() else "does not exist and, as a pattern, matches no image"
            if len(own) > before:
                reason = f"holds no images but {len(own) - before} that this project has written, such as {own[before]}"
            if passed:
                raise CellSegError(f"{given} {reason} ({kinds}), but {_passed_over(given, passed)}")
            raise CellSegError(f"{given} {reason} ({kinds})")
        for match in matches:
            found.setdefault(match.resolve(), match)
        if passed:
            logger.warning("not read from %s: %s", given, _passed_over(given, passed))
            passed = []
    if own:
        logger.warning("left out, since this project has written them: %d images, such as %s", len(own), own[0])
    if others:
        reason = "left out, since their names are those of results beside their images: %d files, such as %s"
        logger.warning(f"{reason}; a file that is named itself is read", len(others), others[0])
    return sorted(found.values())


def _inside(folder: Path, every_kind: bool, recursive: bool) -> Iterator[Path]:
    """What lies in a folder, sorted, and in its sub-folders if asked for; not what is in a Zarr folder."""
    for path in sorted(folder.iterdir()):
        yield path
        if not recursive or path.name.startswith(".") or not path.is_dir() or leads_back(path):
            continue
        if not (every_kind and is_zarr(path)):
            yield from _inside(path, every_kind, recursive)


def _is_passed_over(path: Path, every_kind: bool) -> bool:
    """Whether what lies in a folder of images may be, or hold, an image that is not read from there."""
    if path.name.startswith(".") or _is_image_name(path, every_kind):
        return False
    if path.is_dir():
        try:
            return is_zarr(path) or any(_is_image_name(p, every_kind) and not is_own_result(p) for p in path.iterdir())
        except OSError:
            return False
    return path.suffix.lower() in OTHER_SUFFIXES


def _passed_over(given: str | Path, paths: list[Path]) -> str:
    """What is passed over, and what to do about it."""
    folders = [path for path in paths if path.is_dir() and not is_zarr(path)]
    files = [path for path in paths if path not in folders]
    said = []
    if files:
        kinds = " ".join(sorted({path.suffix.lower() for path in files}))
        said.append(f"files of other kinds ({kinds}): {len(files)}, such as {files[0].name}; save them as TIFF or PNG")
    if folders:
        pattern = Path(given) / "**" / "*"
        said.append(
            f"sub-folders with images: {len(folders)}, such as {folders[0].name}; '{pattern}' names them too, and "
            "cellseg-d2 infer --recursive enters them"
        )
    return ", and ".join(said)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr array or group, by its name or by the files in it."""
    if not path.is_dir():
        return False
    if path.suffix.lower() == ZARR_SUFFIX:
        return True
    try:
        return any((path / name).is_file() for name in ZARR_FILES)
    except OSError:  # nobody else's folder, such as a disk's lost+found, is an image
        return False


def _without_own(paths: Iterable[Path], own: list[Path]) -> list[Path]:
    """The paths that are no results of this project, which are added to ``own``."""
    others: list[Path] = []
    for path in paths:
        (own if is_own_result(path) else others).append(path)
    return others


def _is_image_name(path: Path, every_kind: bool) -> bool:
    if path.name.startswith("."):
        return False
    suffixes = (*IMAGE_SUFFIXES, *MICROSCOPE_SUFFIXES) if every_kind else IMAGE_SUFFIXES
    return (path.suffix.lower() in suffixes and path.is_file()) or (every_kind and is_zarr(path))


def _only_place(tiff: TiffImage) -> Mapping[str, int]:
    """Where the only plane of a TIFF is."""
    (plane,) = choose_planes(tiff.layout, None, tiff.path)
    return plane.stored[0]


def _size_of_tiff(tiff: TiffImage) -> tuple[int, int]:
    _only_place(tiff)
    return tiff.layout.height, tiff.layout.width


def _read(path: str | Path, of_tiff: Callable[[TiffImage], _Read], of_other: Callable[[Image.Image], _Read]) -> _Read:
    path = Path(path)
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            with TiffImage(path) as tiff:
                return of_tiff(tiff)
        check_file(path)
        with clear_errors(path):
            return with_pillow(path, of_other)
    except MemoryError:
        raise ImageError(str(no_memory(path))) from None
