"""The files that a segmentation can be written to, by name.

Each format has a module beside this one. They are imported when a file is written, so that a tool can list the names in
its help at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module  # noqa: TID251
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.errors import CellSegError

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        module, writer: where its function ``(path, segmentation)`` is, in this package.
        suffix: of the file's name, after the name of the image.
        description: one line for users.
    """

    module: str
    writer: str
    suffix: str
    description: str

    def path(self, folder: str | Path, name: str) -> Path:
        """The file for the image ``name`` in a folder."""
        return Path(folder) / f"{file_stem(name)}{self.suffix}"

    def write(self, path: str | Path, segmentation: Segmentation) -> None:
        """Write the file, whole or not at all; its folder is made where needed."""
        getattr(import_module(f"cellseg_d2.export.{self.module}"), self.writer)(path, segmentation)


FORMATS: dict[str, Format] = {
    "labels": Format(
        "labels", "write_labels", "_labels.tif", "label image (TIFF): 0 is background, cell i has value i"
    ),
    "rois": Format("rois", "write_rois", "_rois.zip", "ROI set for the ROI Manager of ImageJ and Fiji"),
    "geojson": Format("geojson", "write_geojson", ".geojson", "polygons with measurements, for QuPath and others"),
    "coco": Format("coco", "write_coco_cells", "_coco.json", "COCO JSON with masks as compressed run lengths"),
    "csv": Format("table", "write_table", "_cells.csv", "measurements, one row a cell"),
    "detections": Format(
        "detections",
        "write_detections",
        "_detections.npz",
        "detections before any threshold, for tools/tune_postprocess.py",
    ),
    "overlay": Format("overlay", "write_overlay", "_overlay.png", "picture of the image with the cells outlined"),
}


def choose_formats(names: Iterable[str]) -> dict[str, Format]:
    """The formats called ``names``, in that order, each once.

    Raises:
        CellSegError: one is not known.
    """
    names = [names] if isinstance(names, str) else list(names)
    unknown = [str(name) for name in names if name not in FORMATS]
    if unknown:
        raise CellSegError(f"unknown format {', '.join(unknown)}; choose from {', '.join(FORMATS)}")
    return {name: FORMATS[name] for name in names}


def file_stem(name: str) -> str:
    """A name as the beginning of a file's name that all systems take: ``/ \\ : * ? " < > |`` and the like become ``_``.

    Example:
        >>> file_stem("plate 1/A5: day 2")
        'plate 1_A5_ day 2'
    """
    stem = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name)
    return stem.lstrip(".") or "image"


def check_distinct(paths: Iterable[str | Path], reserved: Iterable[str] = ()) -> None:
    """Refuse images whose results would go by one name, on this system or on another one that they are copied to.

    Args:
        paths: of the images. Their results are called by :func:`file_stem` of their names without suffix.
        reserved: names of other files beside the results, without suffix.

    Raises:
        CellSegError: names two of them.
    """
    known: dict[str, Path | str] = {_one_name(name): name for name in reserved}
    for path in map(Path, paths):
        other = known.setdefault(_one_name(path.stem), path)
        if other is path:
            continue
        if isinstance(other, str):
            raise CellSegError(f"the result of {path} would have the name of another one, {other}; rename the image")
        if other.stem == path.stem:
            raise CellSegError(f"{other} and {path} would share the image id {path.stem!r}; rename one")
        raise CellSegError(
            f"the results of {other} and {path} would be files of one name, {file_stem(path.stem)}, at least where "
            "upper and lower case are the same; rename one"
        )


def _one_name(name: str) -> str:
    """The same for all names that some system takes for one: of other case, or with accents apart from letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", file_stem(name)).casefold())
