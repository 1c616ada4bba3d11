"""Files as programs of microscopes write them: each kind is read by a package of its own, which need not be there."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from cellseg_d2.images.axes import PlaneChoice
from cellseg_d2.images.errors import ImageError, check_file, clear_errors, closed_on_error
from cellseg_d2.images.stored import RenamedImage, StoredImage


def _czi(path: Path, scene: int | str | None) -> StoredImage:
    from cellseg_d2.images.czi import CziImage

    return CziImage(path, scene)


def _lif(path: Path, scene: int | str | None) -> StoredImage:
    from cellseg_d2.images.lif import LifImage

    return LifImage(path, scene)


def _nd2(path: Path, scene: int | str | None) -> StoredImage:
    from cellseg_d2.images.nd2 import Nd2Image

    return Nd2Image(path, scene)


# By the ending of the file: the package, and what opens it.
_READERS: dict[str, tuple[str, Callable[[Path, int | str | None], StoredImage]]] = {
    ".czi": ("pylibCZIrw", _czi),
    ".lif": ("liffile", _lif),
    ".nd2": ("nd2", _nd2),
}
MICROSCOPE_SUFFIXES = tuple(_READERS)


def open_microscope(path: str | Path, choice: PlaneChoice) -> StoredImage:
    """The image, or one of several, in a file of a microscope's program.

    Args:
        path: of a file with one of :data:`MICROSCOPE_SUFFIXES`.
        choice: may name the axes, and the scene of a file with several images.

    Raises:
        AxesError: there are several images of which one must be chosen.
        ImageError: it cannot be read, or the package that reads it is not installed.
    """
    path = Path(path)
    check_file(path)
    package, opener = _READERS[path.suffix.lower()]
    if importlib.util.find_spec(package) is None:
        raise ImageError(f"{path} needs another package: type `pip install {package}`")
    with clear_errors(path):
        image = opener(path, choice.scene)
    if choice.axes is None:
        return image
    with closed_on_error(image):
        return RenamedImage(image, choice.axes)
