"""The scale at which a network sees an image follows from the cells' diameter, or from what it finds."""

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.scale import AREA_POWER, SURE, choose_scale, evidence, scale_for
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from tests.detections.soft_discs import detections_of

IMAGE = np.zeros((200, 200), np.uint8)
PARAMS = PostprocessParams()


def network(best, scores=(0.9, 0.8, 0.7)):
    """A detector of discs of 20 pixels that is the less sure, the farther the scale is from the best one."""

    def detect(image, scale):
        sure = max(0.0, 1 - abs(np.log(scale / best)) / 3)
        places = [(40 + 50 * i, 60, 10) for i in range(len(scores))]
        return detections_of(places, [sure * score for score in scores], *image.shape)

    return detect


def test_the_arithmetic_of_the_scale():
    assert scale_for(40, 20) == 0.5
    assert scale_for(10, 20) == 2
    for bad in (0, -3, np.nan, np.inf):
        with pytest.raises(CellSegError, match="diameter is"):
            scale_for(bad, 20)
        with pytest.raises(CellSegError, match="model_diameter is"):
            scale_for(20, bad)
    with pytest.raises(CellSegError, match=r"cells of 500 pixels would have to be resized by 0\.04"):
        scale_for(500, 20)


def test_evidence_is_between_counting_cells_and_measuring_them():
    whole = detections_of([(100, 100, 40)], [0.8], 200, 200)
    four = detections_of([(60, 60, 20), (60, 140, 20), (140, 60, 20), (140, 140, 20)], [0.8] * 4, 200, 200)
    assert evidence(whole, PARAMS) == pytest.approx(0.8 * (np.pi * 40**2) ** AREA_POWER, rel=0.02)
    assert evidence(four, PARAMS) / evidence(whole, PARAMS) == pytest.approx(4 ** (1 - AREA_POWER), rel=0.03)
    assert evidence(detections_of([(100, 100, 40)], [0.4], 200, 200), PARAMS) == 0, "below the threshold"


def test_unsure_cells_say_nothing_about_the_scale_however_many_are_kept():
    lenient = PostprocessParams(score_thresholds=(0.2, 0.3))
    sure, unsure = (
        detections_of([(60, 60, 20)], [0.8], 200, 200),
        detections_of([(140, 140, 40)], [SURE - 0.01], 200, 200),
    )
    assert evidence(unsure, lenient) == 0
    assert evidence(sure, lenient) == evidence(sure, PARAMS) > 0
    strict = PostprocessParams(score_thresholds=(0.9,))
    assert evidence(sure, strict) == 0, "what is no cell at all does not count either"


def test_specks_say_nothing_about_the_scale_though_they_may_be_cells():
    doubtful = PostprocessParams(doubtful_areas=(500,))
    for radius, counts in ((7, False), (9, True)):  # 154 and 254 pixels of a doubtful area of 500
        found = detections_of([(60, 60, radius)], [0.99], 200, 200)
        assert len(postprocess(found, doubtful)) == 1
        assert (evidence(found, doubtful) > 0) == counts
    assert evidence(detections_of([(60, 60, 7)], [0.99], 200, 200), PARAMS) > 0
    by_class = PostprocessParams(doubtful_areas=(0, 500))
    for kind, counts in ((0, True), (1, False)):
        assert (evidence(detections_of([(60, 60, 7)], [0.99], 200, 200, [kind]), by_class) > 0) == counts


@pytest.mark.parametrize("best", [0.35, 0.5, 1.0, 1.5])
def test_the_scale_with_most_evidence_is_chosen(best):
    assert choose_scale(network(best), [IMAGE], [0.35, 0.5, 1.0, 1.5], PARAMS) == best


def test_parts_are_looked_at_until_one_has_cells():
    seen = []

    def detect(image, scale):
        seen.append((int(image[0, 0]), scale))
        return network(0.5, (0.9,) if image[0, 0] else ())(image, scale)

    parts = [IMAGE, IMAGE, IMAGE + 1, IMAGE + 2]
    parts[1] = IMAGE.copy()
    assert choose_scale(detect, parts, [0.5, 1.0], PARAMS) == 0.5
    assert [part for part, _ in seen] == [0, 0, 0, 0, 1, 1]


def test_without_cells_the_usual_scale_is_kept():
    for scales, usual in (([0.5, 1.0, 2.0], 1.0), ([0.3, 0.8], 0.8)):
        assert choose_scale(network(1.0, ()), [IMAGE], scales, PARAMS) == usual
