"""The table of the cells of data sets."""

import json

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.shape_space.cells import read_cells


def write(path, crops, category="cell", image_type="round"):
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": 1, "segmentation": crop_to_coco(crop, 50, 60), "iscrowd": 0}
        for i, crop in enumerate(crops)
    ]
    image = {"id": 1, "file_name": f"{path.stem}.png", "height": 50, "width": 60, "cell_type": image_type}
    content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": category}]}
    path.write_text(json.dumps(content))
    return path


def test_cells_of_several_files_with_the_type_of_their_image(tmp_path):
    inner, edge = MaskCrop(5, 5, np.ones((4, 9), bool)), MaskCrop(5, 55, np.ones((4, 5), bool))
    cells = read_cells([write(tmp_path / "a.json", [inner, edge]), write(tmp_path / "b.json", [inner], "dark", "dark")])
    assert cells.images == ["a", "a", "b"]
    assert cells.rows == [1, 2, 1]
    assert cells.types == ["round", "round", "dark"]
    assert cells.cut.tolist() == [False, True, False]
    assert cells.heights.tolist() == [50] * 3
    last = cells.select(np.array([2, 0]))
    assert last.images == ["b", "a"]
    pictures, scales = last.pictures(32)
    assert pictures.shape == (2, 32, 32)
    assert np.allclose(scales, 9 / 28)


def test_files_without_a_cell_are_refused(tmp_path):
    with pytest.raises(CellSegError, match=r"no cell is annotated in .*a\.json"):
        read_cells([write(tmp_path / "a.json", [])])
