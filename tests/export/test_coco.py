"""COCO JSON of a segmentation, read by pycocotools and by this project."""

import numpy as np
import pytest
from pycocotools.coco import COCO

from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.export.coco import write_coco_cells
from tests.inference.segmentations import CLASS_NAMES, HEIGHT, WIDTH, difficult_crops, segmentation_of


def test_pycocotools_reads_the_same_cells(tmp_path):
    segmentation = segmentation_of(difficult_crops(), name="well B.7")
    write_coco_cells(tmp_path / "a.json", segmentation)
    coco = COCO(str(tmp_path / "a.json"))
    assert [(category["id"], category["name"]) for category in coco.loadCats(coco.getCatIds())] == [
        (1, CLASS_NAMES[0]),
        (2, CLASS_NAMES[1]),
    ]
    [image] = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("well B.7.png", HEIGHT, WIDTH)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [annotation["id"] for annotation in annotations] == list(range(1, 8))
    for i, (annotation, mask) in enumerate(zip(annotations, segmentation.masks, strict=True)):
        assert np.array_equal(coco.annToMask(annotation), mask)
        x0, y0, x1, y1 = segmentation.boxes[i]
        assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert annotation["area"] == mask.sum()
        assert annotation["category_id"] == segmentation.classes[i] + 1
        assert annotation["score"] == pytest.approx(segmentation.scores[i], abs=1e-6)


def test_this_project_reads_the_same_cells(tmp_path):
    segmentation = segmentation_of(difficult_crops(), name="well B.7")
    write_coco_cells(tmp_path / "a.json", segmentation)
    [record] = load_coco(tmp_path / "a.json")
    assert (record.id, record.height, record.width) == ("well B.7", HEIGHT, WIDTH)
    assert [cell.cell_type for cell in record.cells] == segmentation.cell_types
    for cell, mask in zip(record.cells, segmentation.masks, strict=True):
        assert np.array_equal(cell.crop.to_full(HEIGHT, WIDTH), mask)


def test_no_cells(tmp_path):
    write_coco_cells(tmp_path / "a.json", segmentation_of([]))
    coco = COCO(str(tmp_path / "a.json"))
    assert coco.getAnnIds() == []
    assert coco.getImgIds() == [1]
    [record] = load_coco(tmp_path / "a.json")
    assert record.cells == []
