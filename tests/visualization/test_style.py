"""What users choose of a picture: colours, numbers that are those of the table, a scale bar of the right length."""

from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.visualization.overlays import distinct_colors, type_color
from cellseg_d2.visualization.style import Style, bar_length, bar_text, draw_scale_bar
from tests.inference.segmentations import HEIGHT, WIDTH, difficult_crops, segmentation_of


@pytest.mark.parametrize("width", np.geomspace(0.01, 1e6, 60))
def test_bars_have_round_lengths_of_a_tenth_to_a_quarter_of_the_width(width):
    length = bar_length(width)
    assert width / 10 * 0.999 <= length <= width / 4 * 1.001
    assert f"{length:.3e}"[:5] in ("1.000", "2.000", "5.000")


@pytest.mark.parametrize(("length", "text"), [(0.5, "500 nm"), (1, "1 µm"), (200, "200 µm"), (5000, "5 mm")])
def test_lengths_have_the_unit_that_suits(length, text):
    assert bar_text(length) == text


@pytest.mark.parametrize(("width", "pixel", "pixels"), [(400, 0.5, 100), (1000, 1.3, 154), (256, 0.1, 50)])
def test_the_bar_is_as_long_as_it_says(width, pixel, pixels):
    ground = np.full((200, width, 3), 90, np.uint8)
    drawn = draw_scale_bar(ground, pixel)
    assert (ground == 90).all(), "drawn on a copy"
    white = (drawn == 255).all(axis=2)
    assert white.sum(axis=1).max() == pixels == round(bar_length(width * pixel) / pixel)
    rows = np.flatnonzero(white.sum(axis=1) > pixels // 2)
    assert len(rows) >= 2, "a bar, which no letter reaches"
    assert (white[rows].sum(axis=1) == pixels).all()
    assert not (drawn != 90).any(axis=2)[: 200 // 2].any()


def test_numbers_are_the_labels_of_the_table():
    segmentation = segmentation_of(difficult_crops())
    assert Style(numbers=True).labels(len(segmentation)) == [str(n) for n in segmentation.measure()["label"]]
    plain = segmentation.picture(upscale=4)
    numbered = replace(segmentation, style=Style(numbers=True)).picture(upscale=4)
    changed = (plain != numbered).any(axis=2)[len(plain) - 4 * HEIGHT :]
    for row in segmentation.measure().itertuples():
        top, left = (max(0, int(4 * middle) - 12) for middle in (row.centroid_y_px, row.centroid_x_px))
        assert changed[top : top + 24, left : left + 24].any(), row.label


def test_colours_are_those_of_types_or_of_cells():
    segmentation = segmentation_of(difficult_crops())
    names = segmentation.class_names
    expected = [type_color(kind, names) for kind in segmentation.cell_types]
    assert segmentation.colors.tolist() == [list(color) for color in expected]
    by_cell = replace(segmentation, style=Style(by_cell=True))
    assert np.array_equal(by_cell.colors, distinct_colors(segmentation.crops))
    assert len(np.unique(by_cell.colors, axis=0)) > len(set(segmentation.cell_types))


def test_without_a_header_the_picture_is_the_image_s():
    segmentation = replace(segmentation_of(difficult_crops()), style=Style(header=False))
    assert segmentation.picture(upscale=2).shape == (2 * HEIGHT, 2 * WIDTH, 3)


def test_a_scale_bar_needs_the_size_of_a_pixel():
    segmentation = replace(segmentation_of(difficult_crops()), pixel_size=None)
    with pytest.raises(CellSegError, match="give --pixel-size"):
        replace(segmentation, style=Style(scale_bar=True))
    sized = replace(segmentation, pixel_size=PixelSize(0.5, 0.5))
    drawn = replace(sized, style=Style(scale_bar=True, header=False)).picture()
    assert (drawn != replace(sized, style=Style(header=False)).picture()).any()
