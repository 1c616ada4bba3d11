"""Refuse outputs that would overwrite inputs, and recognise pictures that the project itself has written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cellseg_d2.errors import CellSegError

# In the metadata of all pictures and label images that the project writes, which stands at their beginning.
MARK = "cellseg_d2 result"
_HEAD = 2048


def is_own_result(path: str | Path) -> bool:
    """Whether an image file is a picture or a label image that this project has written."""
    try:
        with open(path, "rb") as file:
            return MARK.encode() in file.read(_HEAD)
    except OSError:
        return False


def check_outputs(
    outputs: Iterable[str | Path | None],
    inputs: Iterable[str | Path | None],
    searched: Iterable[str | Path | None] = (),
) -> None:
    """Refuse to overwrite inputs, or to write where the same command would look for inputs the next time; called before
    anything is written.

    Args:
        outputs: files that will be written, and folders in which any file may be.
        inputs: files, or folders such as Zarr arrays. None stands for an option that was not given.
        searched: those of the inputs that are folders whose files, also in sub-folders, are read whatever their names.

    Raises:
        CellSegError: an input is an output, or lies in one, two outputs are one file, or an output lies in a folder
            that is searched.
    """
    written: dict[Path, Path] = {}
    replaced = set()
    for path in (Path(path) for path in outputs if path is not None):
        # Not what a link leads to: it is the link that a new file replaces.
        place = path.parent.resolve() / path.name
        if place in replaced:
            raise CellSegError(f"{path} is named for two outputs, of which one would be lost: choose another name")
        replaced.add(place)
        written[path.resolve()] = path
    # By what they are, too: where upper and lower case are the same, one file has several names.
    known = {_identity(place): path for place, path in written.items()}
    known.pop(None, None)
    for given in inputs:
        if given is None:
            continue
        place = Path(given).resolve()
        for part in (place, *place.parents):
            if output := written.get(part) or known.get(_identity(part)):
                raise CellSegError(f"{given} is an input and would be written over by {output}: choose another output")
    folders = {_identity(Path(given)): given for given in searched if given is not None and Path(given).is_dir()}
    for place, output in written.items():
        for part in place.parents:
            if folder := folders.get(_identity(part)):
                raise CellSegError(
                    f"{output} would lie in {folder}, which is read with its sub-folders, so that it would be an input "
                    "the next time: choose another output"
                )


def check_pictures(paths: Iterable[str | Path | None]) -> None:
    """Refuse names of pictures that are no PNG's; called before the work, too. None is an option that was not given.

    Raises:
        CellSegError: names the first of them.
    """
    for path in paths:
        if path is not None and Path(path).suffix.lower() != ".png":
            raise CellSegError(f"pictures are written as PNG, but the name {path} does not end in .png")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
