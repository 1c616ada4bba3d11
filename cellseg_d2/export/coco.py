"""COCO JSON of one segmented image: compressed run lengths, with the scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.datasets.coco_json import write_coco_files
from cellseg_d2.export.formats import FORMATS

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@FORMATS.register("coco", suffix="_coco.json", summary="COCO JSON with masks as compressed run lengths")
def write_coco_cells(path: str | Path, segmentation: Segmentation) -> None:
    """Write the cells as a COCO dataset of one image, whose id is 1; those of its annotations are the labels.

    pycocotools opens it, and so do this project's readers (:func:`cellseg_d2.datasets.coco_reader.load_coco`). Category
    ids count the class names from 1 on. ``file_name`` is the image's; where it is from no file, its name with ``.png``.
    """
    write_coco_files({Path(path): ([segmentation.encoded()], {})}, segmentation.class_names)
