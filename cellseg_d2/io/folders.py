"""What several paths have in common, and links that lead back into the folder that they lie in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cellseg_d2.errors import CellSegError


def common_folder(folders: Iterable[str | Path]) -> Path:
    """The folder that all of ``folders``, at least one, are or lie in, as an absolute path.

    Raises:
        CellSegError: there is none, as between drives of Windows.
    """
    named = list(folders)
    try:
        return Path(os.path.commonpath([os.path.abspath(folder) for folder in named]))
    except ValueError:
        raise CellSegError(
            f"{named[0]} and others of the paths are on different drives: name those of one drive at a time"
        ) from None


def leads_back(folder: Path) -> bool:
    """Whether a folder is a link to a folder that it lies in: who enters it goes in circles."""
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    return any(parent.resolve() == target for parent in folder.absolute().parents)
