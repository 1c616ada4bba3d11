"""COCO JSON of one segmented image: compressed run lengths, with the scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.datasets.coco_json import EncodedCell, EncodedImage, write_coco_files
from cellseg_d2.export.formats import FORMATS
from cellseg_d2.masks.crop import crop_to_coco

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@FORMATS.register("coco", suffix="_coco.json", summary="COCO JSON with masks as compressed run lengths")
def write_coco_cells(path: str | Path, segmentation: Segmentation) -> None:
    """Write the cells as a COCO dataset of one image, whose id is 1; those of its annotations are the labels.

    pycocotools opens it, and so do this project's readers (:func:`cellseg_d2.datasets.coco_reader.load_coco`). Category
    ids count the class names from 1 on. ``file_name`` is the segmentation's name with ``.png``.

    Args:
        path: of the JSON.
        segmentation: the cells.
    """
    height, width, name = segmentation.height, segmentation.width, segmentation.name
    entry = {"id": 1, "file_name": f"{name}.png", "height": height, "width": width, "source_id": name}
    cells = []
    for crop, (x0, y0, x1, y1), index, score in zip(
        segmentation.crops,
        segmentation.boxes.tolist(),
        segmentation.classes.tolist(),
        segmentation.scores.tolist(),
        strict=True,
    ):
        counts = crop_to_coco(crop, height, width)["counts"]
        cells.append(EncodedCell(index + 1, counts, (x0, y0, x1 - x0, y1 - y0), crop.area, round(score, 6)))
    write_coco_files({Path(path): ([EncodedImage(entry, cells)], {})}, segmentation.class_names)
