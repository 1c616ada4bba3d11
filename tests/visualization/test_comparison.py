"""Panels of cells whose matches are known."""

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.comparison import (
    FALSE_POSITIVE,
    MATCHED,
    MISSED,
    comparison_panel,
    contact_sheet,
    match_crops,
)

IMAGE = np.full((60, 90), 9, np.uint16)


def square(top, left, side=10, height=None):
    return MaskCrop(top, left, np.ones((height or side, side), bool))


def where(picture, color):
    return (picture == np.array(color)).all(axis=2)


def columns_of(panel, upscale):
    """Image, truth and prediction, cut from the panel."""
    width, body = 90 * upscale, panel[-60 * upscale :]
    gap = (panel.shape[1] - 3 * width) // 2
    return [body[:, i * (width + gap) : i * (width + gap) + width] for i in range(3)]


def test_matching_is_strict_and_one_to_one():
    truth = [square(0, 0), square(20, 20), square(40, 40)]
    half = square(20, 20, height=5)  # IoU 0.5 exactly: no match
    twice = [square(0, 0), square(0, 0, height=9)]
    found, right = match_crops(truth, [*twice, half], 60, 90)
    assert found.tolist() == [True, False, False]
    assert right.sum() == 1
    assert not right[2]


def test_matching_keeps_the_order_of_both_sides():
    truth = [square(0, 0), square(20, 20), square(40, 40)]
    found, right = match_crops(truth, [square(40, 41), square(0, 60)], 60, 90)
    assert found.tolist() == [False, False, True]
    assert right.tolist() == [True, False]


@pytest.mark.parametrize("empty", ["truth", "prediction", "both"])
def test_matching_of_nothing(empty):
    truth = [] if empty != "prediction" else [square(0, 0)]
    prediction = [] if empty != "truth" else [square(0, 0)]
    found, right = match_crops(truth, prediction, 60, 90)
    assert found.tolist() == [False] * len(truth)
    assert right.tolist() == [False] * len(prediction)
    panel = comparison_panel(IMAGE, truth, prediction, "empty")
    assert panel.dtype == np.uint8


@pytest.mark.parametrize("upscale", [1, 2])
def test_panel_colors_at_known_places(upscale):
    truth = [square(10, 10), square(30, 60)]
    prediction = [square(11, 10), square(40, 5)]
    panel = comparison_panel(IMAGE, truth, prediction, "a", 0.5, upscale=upscale, thickness=1)
    image, true, predicted = columns_of(panel, upscale)
    assert (image == 128).all()
    assert where(true, MATCHED)[10 * upscale, 10 * upscale]
    assert where(true, MISSED)[30 * upscale, 60 * upscale]
    assert where(predicted, MATCHED)[11 * upscale, 10 * upscale]
    assert where(predicted, FALSE_POSITIVE)[40 * upscale, 5 * upscale]
    assert not where(true, FALSE_POSITIVE).any()
    assert not where(predicted, MISSED).any()
    # Errors are filled more densely: their inside is farther from the grey of the image.
    miss, hit = true[35 * upscale, 65 * upscale].astype(int), true[15 * upscale, 15 * upscale].astype(int)
    assert np.abs(miss - 128).max() > np.abs(hit - 128).max() > 0
    legend = panel[: -60 * upscale]
    assert all(where(legend, color).sum() > 30 for color in (MATCHED, MISSED, FALSE_POSITIVE))


def test_the_score_is_written_only_when_known():
    with_score, without = (comparison_panel(IMAGE, [], [], "a", score, upscale=4) for score in (0.25, None))
    assert with_score.shape == without.shape
    assert not np.array_equal(with_score, without)


def test_masks_of_another_image_are_an_error():
    with pytest.raises(CellSegError, match="do the masks belong to this image"):
        comparison_panel(IMAGE, [square(0, 0)], [square(55, 0)], "a")


def test_contact_sheet_places_panels_row_by_row():
    panels = [np.full((10 + i, 20, 3), 50 * (i + 1), np.uint8) for i in range(3)]
    sheet = contact_sheet(panels, columns=2)
    gap = sheet.shape[1] - 40
    assert gap > 0
    assert sheet.shape[0] == 11 + gap + 12
    assert (sheet[:10, :20] == 50).all()
    assert (sheet[:11, 20 + gap :] == 100).all()
    assert (sheet[11 + gap :, :20] == 150).all()
    assert not (sheet[10, :20] == 50).any()


def test_contact_sheet_keeps_its_proportions_when_shrunk():
    sheet = contact_sheet([np.full((100, 400, 3), 77, np.uint8)], columns=3, max_width=100)
    assert sheet.shape == (25, 100, 3)
    assert (sheet == 77).all()


def test_contact_sheet_of_nothing_is_an_error():
    with pytest.raises(CellSegError, match="needs pictures"):
        contact_sheet([], 2)
