"""The images that a user names, or that a COCO JSON names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import find_images


def find_inputs(paths: Sequence[str | Path]) -> list[Path]:
    """The images that ``paths`` name.

    Args:
        paths: see :func:`cellseg_d2.images.read.find_images`; besides, the COCO JSON of a data set, which names its
            images. Zarr folders are images.

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
        else:
            images = find_images(given, zarr=True)
        found |= dict.fromkeys(images)
    return list(found)


def coco_images(json_file: str | Path) -> dict[int, Path]:
    """The image files of a COCO JSON by the images' ids, whether they exist or not.

    Raises:
        CellSegError: it cannot be read, or does not name its images.
    """
    return read_coco(json_file, annotated=False).image_paths()
