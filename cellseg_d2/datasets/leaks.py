"""Find images that are held out for validation or test, so that they are not trained on under any name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.images.errors import ImageError
from cellseg_d2.images.read import read_image
from cellseg_d2.io.progress import track


def find_leaks(paths: Sequence[Path], held_out: Sequence[str | Path]) -> dict[Path, str]:
    """Images that must not be trained on because they are held out, whether by name or under another name.

    Args:
        paths: paths of images.
        held_out: COCO JSON files of annotated images. Where their image files are there, pixels are compared too. An
            image of which a tile is held out is held out.

    Returns:
        For each image that is held out, where it is: the JSON, and the name there.
    """
    names: dict[str, str] = {}
    files: dict[Path, str] = {}
    for json_file in map(Path, held_out):
        content = read_coco(json_file, annotated=False)
        for number, path in content.image_paths().items():
            if whole := content.images[number].get("cut_from"):  # of a tile; the image has other pixels
                name = PurePosixPath(whole).name
                names.setdefault(name, f"{json_file}: a tile of {name}")
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
