"""The images that a user names for prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellseg_d2.datasets.leaks import coco_images
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import find_images


def find_inputs(paths: Sequence[str | Path]) -> list[Path]:
    """The images that ``paths`` name.

    Args:
        paths: see :func:`cellseg_d2.images.read.find_images`; besides, the COCO JSON of a data set, which names its
            images, and Zarr folders, each of which is one image.

    Returns:
        Paths without repetition, in the order of ``paths``.

    Raises:
        CellSegError: one names no image, or an image that a JSON names is not there.
    """
    found: dict[Path, None] = {}
    for given in map(Path, paths):
        if given.suffix.lower() == ".json" and given.is_file():
            images = sorted(coco_images(given).values())
            if missing := [path for path in images if not path.is_file()]:
                raise CellSegError(f"{given} names {len(missing)} images that are not there, such as {missing[0]}")
        elif given.is_dir() and given.suffix.lower() == ".zarr":
            images = [given]
        else:
            images = find_images(given)
        found |= dict.fromkeys(images)
    return list(found)
