"""Find images that are held out for validation or test, so that they are not trained on under any name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellseg_d2.datasets.find import coco_images
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.read import read_image
from cellseg_d2.io.progress import track


def find_leaks(paths: Sequence[Path], held_out: Sequence[str | Path]) -> dict[Path, str]:
    """Images that must not be trained on because they are held out, whether by name or under another name.

    Args:
        paths: paths of images.
        held_out: COCO JSON files of annotated images. Where their image files are there, pixels are compared too.

    Returns:
        For each image that is held out, where it is: the JSON, and the name there.
    """
    names: dict[str, str] = {}
    files: dict[Path, str] = {}
    for json_file in map(Path, held_out):
        for path in coco_images(json_file).values():
            names.setdefault(path.stem, f"{json_file}: {path.stem}")
            if path.is_file():
                files.setdefault(path, f"{json_file}: {path.stem}")
    leaks = {path: names[path.stem] for path in paths if path.stem in names}
    known: dict[str, str] = {}
    for path, where in track(files.items(), "reading held-out images"):
        known.setdefault(_pixels(path), where)
    others = [path for path in paths if path not in leaks] if known else []
    for path in track(others, "comparing images"):
        try:
            where = known.get(_pixels(path))
        except ImageError:  # nor can it be labelled, which is where this is reported
            continue
        if where is not None:
            leaks[path] = f"{where} (the same pixels)"
    return leaks


def _pixels(path: Path) -> str:
    """A fingerprint of what the image shows, whatever its file format."""
    image = read_image(path)
    return hashlib.sha256(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
