"""Test-time augmentation, with a detector that needs no network: the result turns with the image."""

from itertools import product

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams, fuse
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.tta import FLIPS, View, detect_views, make_views
from cellseg_d2.masks.crop import MaskCrop
from tests.detections.soft_discs import detections_of, scattered_discs, threshold_detector

HEIGHT, WIDTH = 90, 130
ALL_EIGHT = [View(mirrored, turns) for mirrored, turns in product((False, True), range(4))]


@pytest.fixture(scope="module")
def discs():
    return scattered_discs(np.random.default_rng(3), 16, HEIGHT, WIDTH, gap=3)


@pytest.fixture(scope="module")
def image(discs):
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = (np.hypot(y[..., None] - discs[:, 1], x[..., None] - discs[:, 0]) <= discs[:, 2]).any(axis=2)
    return np.where(inside, 200, 10).astype(np.uint8)


def full_masks(detections):
    return [crop.to_full(detections.height, detections.width) for crop in detections.crops()]


@pytest.mark.parametrize("view", ALL_EIGHT, ids=str)
@pytest.mark.parametrize("binary", [False, True])
def test_what_is_seen_in_a_view_comes_back_exactly(view, binary, discs):
    """Of a mask image that is drawn, transformed, found there and brought back."""
    rng = np.random.default_rng(0)
    masks = rng.uniform(0, 1, (4, 7, 7)).astype(np.float32)
    boxes = np.array([[3, 5, 20, 40], [60, 2, 128, 20], [100, 70, 130, 90], [0, 0, 7, 7]], np.float32)
    here = Detections(HEIGHT, WIDTH, boxes, np.arange(4) / 4, np.arange(4), masks)
    if binary:
        here = Detections(HEIGHT, WIDTH, boxes, here.scores, here.classes, here.crops())
    # As the view would show it: every mask's picture in this orientation, its box around it.
    turned = [view.apply(mask) for mask in full_masks(here)]
    height, width = view.apply(np.zeros((HEIGHT, WIDTH))).shape
    corners = view.transform(HEIGHT, WIDTH).apply_box(boxes)
    there = Detections(
        height,
        width,
        corners,
        here.scores,
        here.classes,
        [MaskCrop.from_full(mask) for mask in turned] if binary else np.stack([view.apply(mask) for mask in masks]),
    )
    for mask, expected in zip(full_masks(there), turned, strict=True):
        assert np.array_equal(mask, expected)
    back = view.restore(there)
    assert (back.height, back.width) == (HEIGHT, WIDTH)
    assert np.array_equal(back.boxes, boxes)
    assert np.array_equal(back.classes, here.classes)
    for mask, expected in zip(full_masks(back), full_masks(here), strict=True):
        assert np.array_equal(mask, expected)
    if not binary:
        assert np.array_equal(back.masks, masks)


def test_a_view_shows_what_its_name_says():
    image = np.arange(6).reshape(2, 3)
    assert np.array_equal(View().apply(image), image)
    assert np.array_equal(View(mirrored=True).apply(image), image[:, ::-1])
    assert np.array_equal(View(turns=2).apply(image), image[::-1, ::-1])
    assert np.array_equal(View(mirrored=True, turns=2).apply(image), image[::-1])
    assert np.array_equal(View(turns=1).apply(image), [[2, 5], [1, 4], [0, 3]])
    assert View(turns=1).apply(image).flags.c_contiguous


def test_views_are_all_different_and_begin_with_the_image_itself(image):
    counts = {}
    for flips, turns in product(FLIPS, (False, True)):
        views = make_views(flips, turns)
        counts[flips, turns] = len(views)
        assert views[0] == View()
        assert len({view.apply(image).tobytes() for view in views}) == len(views)
    assert counts == {
        ("none", False): 1,
        ("none", True): 4,
        ("horizontal", False): 2,
        ("horizontal", True): 8,
        ("vertical", False): 2,
        ("vertical", True): 8,
        ("both", False): 4,
        ("both", True): 8,
    }
    scaled = make_views("horizontal", False, [1.5, 1, 0.8, 1.5])
    assert [(view.mirrored, view.scale) for view in scaled] == [
        (False, 1.0),
        (True, 1.0),
        (False, 0.8),
        (True, 0.8),
        (False, 1.5),
        (True, 1.5),
    ]


def detect_augmented(detect, image, views, params=None):
    return fuse(detect_views(detect, image, views), params)


def assert_same_cells(found, expected):
    """The same detections, in any order among equal scores."""
    assert (found.height, found.width, len(found)) == (expected.height, expected.width, len(expected))

    def order(d):
        return np.lexsort(np.round(d.boxes, 2).T)

    i, j = order(found), order(expected)
    assert np.allclose(found.boxes[i], expected.boxes[j], atol=1e-4)
    assert np.allclose(found.scores[i], expected.scores[j], atol=1e-6)
    assert np.allclose(found.masks[i], expected.masks[j], atol=1e-5)


@pytest.mark.parametrize("view", ALL_EIGHT, ids=str)
@pytest.mark.parametrize("compared", ["mask", "box"])
def test_the_result_turns_with_the_image_however_biased_the_detector(view, compared, image):
    views, params = make_views("both", True), FusionParams(compared=compared)
    straight = detect_augmented(threshold_detector, image, views, params)
    turned = detect_augmented(threshold_detector, view.apply(image), views, params)
    assert len(straight) > 10
    assert_same_cells(view.restore(turned), straight)


@pytest.mark.parametrize(("flips", "mirrored", "turns"), [("horizontal", True, 0), ("vertical", True, 2)])
def test_with_one_flip_the_result_flips_with_the_image(flips, mirrored, turns, image):
    view, views = View(mirrored, turns), make_views(flips, False)
    straight = detect_augmented(threshold_detector, image, views)
    assert_same_cells(view.restore(detect_augmented(threshold_detector, view.apply(image), views)), straight)
    # The detector alone does not: the test above would fail without the augmentation.
    alone, flipped = threshold_detector(image), view.restore(threshold_detector(view.apply(image)))
    assert len(alone) != len(flipped) or not np.allclose(np.sort(alone.boxes, 0), np.sort(flipped.boxes, 0))


def test_a_detector_without_bias_is_not_changed(discs):
    """Eight exact views of the same discs are fused into what one of them shows."""
    expected = detections_of(discs, np.linspace(0.5, 0.9, len(discs)), HEIGHT, WIDTH)

    def detect(seen, scale):
        view = next(view for view in ALL_EIGHT if np.array_equal(view.apply(marked), seen))
        size = view.apply(marked).shape
        masks = np.stack([view.apply(mask) for mask in expected.masks])
        boxes = view.transform(HEIGHT, WIDTH).apply_box(expected.boxes)
        return Detections(*size, boxes, expected.scores, expected.classes, masks)

    marked = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    assert_same_cells(detect_augmented(detect, marked, make_views()), expected)


def test_scales_are_handed_to_the_detector(image):
    seen = []

    def detect(picture, scale):
        seen.append((picture.shape, scale))
        return threshold_detector(picture)

    detect_views(detect, image, make_views("none", True, [1, 1.2]))
    portrait, landscape = (WIDTH, HEIGHT), (HEIGHT, WIDTH)
    assert seen == [(shape, scale) for scale in (1.0, 1.2) for shape in (landscape, portrait, landscape, portrait)]


def test_nothing_found_is_nothing_fused():
    empty = np.zeros((HEIGHT, WIDTH), np.uint8)
    assert len(detect_augmented(threshold_detector, empty, make_views())) == 0


def test_bad_settings_are_one_sentence():
    with pytest.raises(CellSegError, match=r"TEST\.TTA\.FLIPS is 'diagonal'"):
        make_views("diagonal")
    for scales in ([], [0], [-1], [float("nan")], [100]):
        with pytest.raises(CellSegError, match=r"TEST\.TTA\.SCALES"):
            make_views(scales=scales)
