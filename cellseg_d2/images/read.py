"""Finding and reading microscopy images: PNG, JPEG, BMP and TIFF, always as one grey plane."""

from __future__ import annotations

import glob
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from cellseg_d2.errors import CellSegError, first_line
from cellseg_d2.io.outputs import is_own_result

logger = logging.getLogger(__name__)
_Read = TypeVar("_Read")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")

# ITU-R BT.601, the weights that Pillow takes for 8-bit colours.
_LUMA = np.array([0.299, 0.587, 0.114])
# No compression is denser than so many pixels a byte; a header that claims more would only fill memory.
_DENSEST, _SMALL = 2**14, 2**26
# Pillow's modes that hold one grey plane of more than 8 bits.
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


class ImageError(CellSegError):
    """A file that cannot be read as one grey image."""


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
    path = Path(path)
    return _read(path, _read_tiff, _read_with_pillow)


def read_label_plane(path: str | Path) -> np.ndarray:
    """Read a label image, whose values are numbers of objects and no intensities.

    Args:
        path: as of :func:`read_image`. In a palette image the palette's indices are the labels.

    Returns:
        ``(H, W)`` of the file's own dtype, integer or floating.

    Raises:
        ImageError: as of :func:`read_image`, or the image has colours.
    """
    path = Path(path)
    return _read(path, _read_tiff_labels, _read_labels_with_pillow)


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` in pixels, from the file's header alone.

    Raises:
        ImageError: the file is missing, empty, no image, or holds several planes.
    """
    path = Path(path)
    return _read(path, _tiff_size, lambda p: _with_pillow(p, lambda image: image.size[::-1]))


def find_images(paths: Iterable[str | Path] | str | Path) -> list[Path]:
    """The image files that ``paths`` name.

    Pictures and label images that this project has written are left out of folders and patterns, with a word.

    Args:
        paths: one or several of: a file (taken as it is), a folder (its files with one of :data:`IMAGE_SUFFIXES`, not
            those of its sub-folders), a glob pattern (``**`` enters sub-folders). A path that exists is never taken
            for a pattern, so that names such as ``astros[cereb]_1.png`` work.

    Returns:
        Sorted paths, every file once.

    Raises:
        CellSegError: a path matches no image.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    found: dict[Path, Path] = {}
    own: list[Path] = []
    for given in paths:
        path, before = Path(given), len(own)
        if path.is_dir():
            matches = _without_own((p for p in path.iterdir() if _is_image_name(p)), own)
        elif path.exists():
            matches = [path]
        else:
            named = map(Path, glob.glob(str(given), recursive=True))
            matches = _without_own((p for p in named if _is_image_name(p)), own)
        if not matches:
            kinds = " ".join(IMAGE_SUFFIXES)
            reason = "holds no image" if path.is_dir() else "does not exist and, as a pattern, matches no image"
            if len(own) > before:
                reason = f"holds no images but {len(own) - before} that this project has written, such as {own[before]}"
            raise CellSegError(f"{given} {reason} ({kinds})")
        for match in matches:
            found.setdefault(match.resolve(), match)
    if own:
        logger.warning("left out, since this project has written them: %d images, such as %s", len(own), own[0])
    return sorted(found.values())


def _without_own(paths: Iterable[Path], own: list[Path]) -> list[Path]:
    """The paths that are no results of this project, which are added to ``own``."""
    others: list[Path] = []
    for path in paths:
        (own if is_own_result(path) else others).append(path)
    return others


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _read(path: Path, read_tiff: Callable[[Path], _Read], read_other: Callable[[Path], _Read]) -> _Read:
    if not path.is_file():
        raise ImageError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is an empty file; copy or download it again")
    with clear_errors(path):
        return (read_tiff if path.suffix.lower() in TIFF_SUFFIXES else read_other)(path)


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """What a decoder raises inside the block becomes an :class:`ImageError` that names the file."""
    try:
        yield
    except CellSegError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no image that can be read (PNG, JPEG, BMP or TIFF)") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path} has too many pixels to be read at once; cut it into tiles first") from None
    except MemoryError:
        raise ImageError(f"{path} does not fit into memory") from None
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ImageError(f"{path} cannot be read, it seems damaged or truncated ({first_line(error)})") from None


def _with_pillow(path: Path, use: Callable[[Image.Image], _Read]) -> _Read:
    with Image.open(path) as image:
        # Only TIFF files are stacks; a GIF-like animation in a PNG shows its first frame.
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and path.suffix.lower() in TIFF_SUFFIXES:
            raise _stack_error(path, (frames, *image.size[::-1]))
        return use(image)


def _read_with_pillow(path: Path) -> np.ndarray:
    return _with_pillow(path, _grey_from_pillow)


def _grey_from_pillow(image: Image.Image) -> np.ndarray:
    if image.mode in _DEEP_MODES:
        return plain_dtype(np.array(image))
    if image.mode == "P":
        image = image.convert("RGB")  # straight from palette to grey, Pillow would keep a palette's transparency
    return np.array(image.convert("L"))


def _read_labels_with_pillow(path: Path) -> np.ndarray:
    return _with_pillow(path, lambda image: _labels_from_pillow(path, image))


def _labels_from_pillow(path: Path, image: Image.Image) -> np.ndarray:
    if image.mode not in (*_DEEP_MODES, "L", "P", "1"):
        raise _coloured_labels(path)
    return np.array(image)


def _coloured_labels(path: Path) -> ImageError:
    return ImageError(f"{path} has colours; a label image has one channel, 0 for background and a number for each cell")


def plain_dtype(image: np.ndarray) -> np.ndarray:
    """The smallest of uint8, uint16 and float32 that holds what was read.

    Raises:
        ImageError: it is of a type that is no real number.
    """
    if image.dtype.kind not in "buif":
        raise ImageError(f"pixels are real numbers or bool, but this image is of type {image.dtype}")
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return image
    if np.issubdtype(image.dtype, np.integer) and (image.size == 0 or (image.min() >= 0 and image.max() <= 65535)):
        return image.astype(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):  # doubles beyond float32 become infinite, and are no pixels then
        return image.astype(np.float32)


def _read_tiff(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        page, axes = tiff_layout(path, tiff)
        if needs_pillow(page):
            return _read_with_pillow(path)
        image = tiff.series[0].asarray().reshape([n for n, _ in axes])
        if len(axes) == 3:
            image = np.moveaxis(image, [name for _, name in axes].index("S"), -1)
        return grey_of_page(page, image)


def grey_of_page(page: tifffile.TiffPage, image: np.ndarray) -> np.ndarray:
    """Grey values of a TIFF page, or of a part of it, as stored: ``(H, W)``, or ``(H, W, 2…4)`` with colours last."""
    if image.ndim == 3:
        return grey_from_channels(image)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        return grey_from_channels(np.moveaxis(page.colormap[:, image], 0, -1) >> 8).astype(np.uint8)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind in "bu":
        image = ~image
    return plain_dtype(image)


def _read_tiff_labels(path: Path) -> np.ndarray:
    with tifffile.TiffFile(path) as tiff:
        page, axes = tiff_layout(path, tiff)
        if len(axes) == 3:
            raise _coloured_labels(path)
        if needs_pillow(page):
            return _read_labels_with_pillow(path)
        return tiff.series[0].asarray().reshape([n for n, _ in axes])


def _tiff_size(path: Path) -> tuple[int, int]:
    with tifffile.TiffFile(path) as tiff:
        _, axes = tiff_layout(path, tiff)
        height, width = (n for n, name in axes if name != "S")
        return height, width


def tiff_layout(path: Path, tiff: tifffile.TiffFile) -> tuple[tifffile.TiffPage, list[tuple[int, str]]]:
    """The first page, and lengths with names of the axes that are longer than 1: Y and X, maybe S for colours."""
    if not tiff.series or not tiff.pages:
        raise ImageError(f"{path} holds no image")
    series = tiff.series[0]
    pixels, size = math.prod(series.shape), path.stat().st_size
    if pixels == 0:
        raise ImageError(f"{path} holds no pixels; it seems damaged")
    if pixels > max(_SMALL, _DENSEST * size):
        shape = " × ".join(map(str, series.shape))
        raise ImageError(f"{path} claims to hold {shape} pixels, but has only {size:,} bytes; it seems damaged")
    axes = [(n, name) for n, name in zip(series.shape, series.axes, strict=True) if n > 1 or name in "YX"]
    names = "".join(name for _, name in axes)
    colours = names in ("YXS", "SYX") and {name: n for n, name in axes}["S"] in (2, 3, 4)
    if len(tiff.series) > 1 and any(other.shape == series.shape for other in tiff.series[1:]):
        raise _stack_error(path, (len(tiff.series), *series.shape))
    if names != "YX" and not colours:
        raise _stack_error(path, series.shape)
    return tiff.pages.first, axes


def _stack_error(path: Path, shape: tuple[int, ...]) -> ImageError:
    return ImageError(f"{path} is a stack of shape {' × '.join(map(str, shape))}; save the planes as one image each")


def needs_pillow(page: tifffile.TiffPage) -> bool:
    """Compressions that tifffile only reads with a further package (LZW, JPEG, PackBits …); libtiff knows them."""
    builtin = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
    return page.compression not in builtin or page.predictor != 1


def grey_from_channels(image: np.ndarray) -> np.ndarray:
    """Grey of ``(H, W, 2…4)``: grey and alpha, or RGB with or without alpha; dtype as of :func:`plain_dtype`."""
    image = plain_dtype(image)
    if image.shape[2] == 2:
        return np.ascontiguousarray(image[:, :, 0])
    grey = image[:, :, :3] @ _LUMA
    return grey.astype(np.float32) if image.dtype == np.float32 else np.rint(grey).astype(image.dtype)
