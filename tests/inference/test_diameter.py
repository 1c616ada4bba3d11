"""Cells of any size are seen at the size that the network knows."""

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.diameter import detect_any_size, detect_at_diameter, estimate_diameter, scale_for
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess.steps import PostprocessParams, postprocess
from tests.detections.soft_discs import detections_of

IMAGE = np.zeros((200, 200), np.uint8)
# Known to the network: cells of 20 pixels. It says less of a difference than there is.
KNOWN = 20


def discs(diameter, scores=(0.9, 0.8, 0.7), height=200, width=200):
    places = [(40 + 50 * i, 60, diameter / 2) for i in range(len(scores))]
    return detections_of(places, scores, height, width)


def network(diameter):
    """A detector of discs of ``diameter`` pixels with a bias towards KNOWN, and the scales at which it looked."""
    scales = []

    def detect(image, scale):
        scales.append(scale)
        seen = diameter * scale
        biased = KNOWN * (seen / KNOWN) ** 0.8 / scale
        sure = max(seen / KNOWN, KNOWN / seen) < 8
        return discs(biased, [0.9 if sure else 0.1] * 3, *image.shape)

    return detect, scales


def test_the_median_diameter_of_discs():
    assert estimate_diameter(discs(16)) == pytest.approx(16, rel=0.02)
    cells = postprocess(discs(16), PostprocessParams())
    assert estimate_diameter(cells) == pytest.approx(16, rel=0.02)
    mixed = detections_of([(30, 30, 5), (60, 60, 6), (90, 90, 20)], [0.9, 0.9, 0.9], 200, 200)
    assert estimate_diameter(mixed) == pytest.approx(12, rel=0.03)


def test_unsure_cells_and_cells_at_the_border_do_not_count():
    places = [(50, 50, 8), (100, 100, 20), (0, 150, 20), (150, 200, 20)]
    found = detections_of(places, [0.9, 0.4, 0.9, 0.9], 200, 200)
    assert estimate_diameter(found) == pytest.approx(16, rel=0.02)
    assert estimate_diameter(found, min_score=0.3) == pytest.approx((16 + 40) / 2, rel=0.02)
    assert estimate_diameter(found.select([2, 3])) == pytest.approx(
        40 / 2**0.5, rel=0.05
    )  # half discs are all there is


def test_without_confident_cells_the_size_is_unknown():
    empty = Detections(
        9, 9, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), [MaskCrop(0, 0, np.zeros((0, 0)))][:0]
    )
    for found in (discs(16, [0.2]), empty, postprocess(empty, PostprocessParams())):
        with pytest.raises(CellSegError, match="give their diameter in pixels"):
            estimate_diameter(found)


def test_the_arithmetic_of_the_scale():
    assert scale_for(40, 20) == 0.5
    assert scale_for(10, 20) == 2
    assert scale_for(40, 20, resizing=0.5) == 1  # the usual input already shows cells half as large
    for bad in (0, -3, np.nan, np.inf):
        with pytest.raises(CellSegError, match="diameter is"):
            scale_for(bad, 20)
        with pytest.raises(CellSegError, match="resizing is"):
            scale_for(20, 20, bad)
    with pytest.raises(CellSegError, match=r"cells of 500 pixels would have to be resized by 0\.04"):
        scale_for(500, 20)


def test_a_known_diameter_is_one_look():
    detect, scales = network(50)
    assert estimate_diameter(detect_at_diameter(detect, IMAGE, 50, KNOWN)) == pytest.approx(50, rel=0.02)
    assert scales == [0.4]


@pytest.mark.parametrize("diameter", [15, 20, 28])
def test_cells_of_about_the_known_size_are_looked_at_once(diameter):
    detect, scales = network(diameter)
    assert detect_any_size(detect, IMAGE, KNOWN).scale == 1
    assert scales == [1]


@pytest.mark.parametrize("resizing", [1, 0.5, 1.6])
@pytest.mark.parametrize("diameter", [9, 44, 60])
def test_cells_of_another_size_are_looked_at_twice(diameter, resizing):
    # `resizing` is in what the network sees, so a detector that knows nothing of it has to be told the rest.
    detect, scales = network(diameter)
    result = detect_any_size(lambda image, scale: detect(image, scale * resizing), IMAGE, KNOWN, resizing=resizing)
    assert len(scales) == 2
    assert scales[0] == 1
    assert scales[1] == pytest.approx((KNOWN / diameter) ** 0.8, rel=0.05)
    assert result.scale == pytest.approx(scales[1] / resizing)
    assert result.diameter == pytest.approx(diameter, rel=0.1)
    assert result.diameter == estimate_diameter(result.detections)
    once = estimate_diameter(detect(IMAGE, 1))
    assert abs(result.diameter - diameter) < abs(once - diameter)


def test_the_first_look_stays_where_the_second_finds_nothing():
    first, nothing = discs(40), discs(40, [0.1])
    result = detect_any_size(lambda image, scale: first if scale == 1 else nothing, IMAGE, KNOWN)
    assert result.detections is first
    assert result.scale == 1


def test_an_image_without_cells_is_looked_at_once():
    scales = []
    result = detect_any_size(lambda image, scale: scales.append(scale) or discs(40, [0.1]), IMAGE, KNOWN)
    assert (scales, result.scale, result.diameter) == ([1], 1, None)


def test_the_second_look_is_not_beyond_the_limits():
    scales = []
    detect_any_size(lambda image, scale: scales.append(scale) or discs(30), IMAGE, 1000, resizing=0.5)
    assert scales == [2, 20]
    with pytest.raises(CellSegError, match="tolerance"):
        detect_any_size(lambda image, scale: discs(30), IMAGE, KNOWN, tolerance=0.5)
