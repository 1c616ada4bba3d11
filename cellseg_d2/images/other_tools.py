"""Files that segmentation tools write beside an image, told from images by their names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# Endings of label images after the name of their image: those of Cellpose, this project and other tools.
LABEL_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "_seg")
# Endings of what Cellpose writes besides.
OTHER_ENDINGS = ("_flows", "_cp_output", "_dP", "_cellprob", "_outlines", "_overlay")


def results_of_others(paths: Iterable[Path]) -> set[Path]:
    """Of files those that are called as a result of another one among them, as ``a_masks.png`` is beside ``a.tif``."""
    paths = list(paths)
    known = {(path.parent, path.stem) for path in paths}
    found = set()
    for path in paths:
        for ending in (*LABEL_ENDINGS, *OTHER_ENDINGS):
            if path.stem.endswith(ending) and (path.parent, path.stem.removesuffix(ending)) in known:
                found.add(path)
    return found
