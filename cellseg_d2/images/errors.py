"""The error of an image file that cannot be read, and how the many errors of decoders become it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError

from cellseg_d2.errors import CellSegError, first_line, printable

# No compression is denser than so many pixels a byte; a header that claims more would only fill memory.
_DENSEST, _SMALL = 2**14, 2**26


class ImageError(CellSegError):
    """A file that cannot be read as one grey image."""


@contextmanager
def clear_errors(path: str | Path) -> Iterator[None]:
    """What a decoder raises inside the block becomes an :class:`ImageError` that names the file.

    That memory is full is no fault of the file and stays what it is: smaller parts of the image may fit.
    """
    try:
        yield
    except (CellSegError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path} is no image that can be read (PNG, JPEG, BMP or TIFF)") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{path} has too many pixels to be read at once; cut it into tiles first") from None
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ImageError(f"{path} cannot be read, it seems damaged or truncated ({first_line(error)})") from None


class Closable(Protocol):
    """Anything with ``close()``."""

    def close(self) -> object: ...


@contextmanager
def closed_on_error(file: Closable) -> Iterator[None]:
    """Close ``file`` if the block fails; otherwise it stays open."""
    try:
        yield
    except BaseException:
        file.close()
        raise


def check_file(path: Path) -> None:
    """Refuse what is no file, or an empty one.

    Raises:
        ImageError: the message says which.
    """
    if not path.is_file():
        raise ImageError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is an empty file; copy or download it again")


def check_name(path: Path) -> None:
    """Refuse a file whose name cannot be the image's name in tables and files: no UTF-8, or with control characters.

    Raises:
        ImageError: the message shows the name with escapes.
    """
    if not path.stem.isprintable():
        kind = (
            "that is no UTF-8" if any("\ud800" <= char <= "\udfff" for char in path.stem) else "with control characters"
        )
        raise ImageError(f"{printable(path)} has a name {kind}, which no table can hold; rename the file")


def check_claim(path: str | Path, shape: Sequence[int], pixels: int, size: int) -> None:
    """Refuse a file whose header claims more pixels than its bytes can stand for, or none.

    Args:
        path: for the message.
        shape: that is claimed, for the message.
        pixels: number of values of this shape, without overflow.
        size: bytes of the file.

    Raises:
        ImageError: the claim cannot be true.
    """
    if pixels == 0:
        raise ImageError(f"{path} holds no pixels; it seems damaged")
    if pixels > max(_SMALL, _DENSEST * size):
        claimed = " × ".join(map(str, shape))
        raise ImageError(f"{path} claims to hold {claimed} pixels, but has only {size:,} bytes; it seems damaged")
