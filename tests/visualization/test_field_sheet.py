"""Pictures of fields: colours that say the direction, and a sheet of a drawn cell."""

import numpy as np
import pytest

from cellseg_d2.detections.dense import DenseMaps
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.flows import flow_field
from cellseg_d2.visualization.field_sheet import field_colors, field_sheet
from tests.shapes import disc


def test_a_direction_is_a_hue_and_a_length_its_brightness():
    right, left, half, none = field_colors(np.array([[[1.0, -1.0, 0.5, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]))[0].astype(int)
    assert right.tolist() == [255, 0, 0]
    assert left.tolist() == [0, 255, 255]
    assert half.tolist() == [127, 0, 0]
    assert none.tolist() == [0, 0, 0]
    assert field_colors(np.full((2, 3, 5), 7.0)).shape == (3, 5, 3)


@pytest.mark.parametrize("columns", [4, 2])
def test_a_sheet_has_four_pictures_of_the_image_s_size(columns):
    mask = disc(64, 30, 32, 14)
    coarse = mask[::2, ::2]
    foreground, field = coarse.astype(np.float32), flow_field(coarse.astype(np.int32))
    maps = DenseMaps(2, foreground, field, np.ones((1, 32, 32), np.float32))
    sheet = field_sheet(np.where(mask, 200, 50).astype(np.uint8), maps, [MaskCrop.from_full(mask)], "a", columns)
    assert sheet.shape[1] >= columns * 64
    assert sheet.shape[0] >= 4 // columns * 64
    colors = {tuple(color) for color in sheet.reshape(-1, 3).tolist()}
    assert any(max(color) > 200 and min(color) < 30 for color in colors), "the field is in colour"
