"""The floor finds what is easy to find."""

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.metrics.competition import score_image
from tests.discs import disc_image


def score(segmentation, crops):
    found, true = ([crop_to_coco(c, segmentation.height, segmentation.width) for c in some] for some in (
        segmentation.crops, crops
    ))  # fmt: skip
    return score_image(found, true).per_threshold[0]


def test_bright_discs_are_found_by_brightness():
    image, crops = disc_image(np.random.default_rng(0), 160, 8, 0)
    assert score(ClassicalSegmenter("otsu").segment(image), crops) == 1


def test_touching_discs_are_parted():
    y, x = np.mgrid[:80, :120]
    discs = [(y - 40) ** 2 + (x - middle) ** 2 <= 20**2 for middle in (40, 76)]
    segmentation = ClassicalSegmenter("otsu").segment(np.where(discs[0] | discs[1], 200, 20).astype(np.uint8))
    assert len(segmentation) == 2
    assert sorted(crop.area for crop in segmentation.crops) == pytest.approx([1257, 1257], rel=0.06)


def test_cells_that_are_no_brighter_than_the_ground_are_found_by_texture():
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:160, :160]
    inside = (y - 80) ** 2 + (x - 80) ** 2 <= 25**2
    image = np.clip(128 + rng.normal(0, np.where(inside, 30, 2)), 0, 255).astype(np.uint8)
    areas = [crop.area for crop in ClassicalSegmenter("otsu-texture", least_distance=40).segment(image).crops]
    assert areas == [pytest.approx(inside.sum(), rel=0.15)]


def test_an_even_image_has_no_cells_and_a_wrong_name_is_told():
    assert len(ClassicalSegmenter().segment(np.full((30, 40), 9, np.uint8))) == 0
    with pytest.raises(CellSegError, match="no method 'magic'"):
        ClassicalSegmenter("magic")
