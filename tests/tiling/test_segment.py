"""Large images in tiles: the same cells as in one piece, each once."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cellseg_d2.detections.detections import Detections, SoftCrop
from cellseg_d2.images.lazy import ImageSource
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess import nms
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from cellseg_d2.tiling.grid import tile_grid
from cellseg_d2.tiling.seams import MergedDetections
from cellseg_d2.tiling.segment import segment_tiled

PLAIN = PostprocessParams(vote=False)


def drawn(discs, height, width):
    """Discs, rows of ``(center_x, center_y, radius, brightness)``, on a dark ground."""
    image = np.zeros((height, width), np.uint8)
    for x, y, r, brightness in discs:
        top, left = max(0, int(y - r)), max(0, int(x - r))
        rows, columns = np.ogrid[top : min(height, int(y + r) + 2), left : min(width, int(x + r) + 2)]
        disc = (columns - x) ** 2 + (rows - y) ** 2 <= r**2
        image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1][disc] = brightness
    return image


def many_discs(seed, count, height, width, radius=(3.0, 9.0)):
    """An image of discs that keep apart, cut off by the border here and there."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width), np.uint8)
    for _ in range(count):
        r = generator.uniform(*radius)
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        disc = (x, y, r, generator.integers(100, 250))
        around = image[max(0, int(y - r - 2)) : int(y + r + 3), max(0, int(x - r - 2)) : int(x + r + 3)]
        if not around.any():
            image = np.maximum(image, drawn([disc], height, width))
    return image


def find_regions(image):
    """Connected regions as binary masks; score and class follow from what the region looks like and not from where."""
    labels, _ = ndimage.label(image)
    places = ndimage.find_objects(labels)
    crops = [
        MaskCrop(rows.start, columns.start, labels[rows, columns] == number)
        for number, (rows, columns) in enumerate(places, start=1)
    ]
    brightness = [int(image[crop.slices][crop.mask].max()) for crop in crops]
    return Detections(
        *image.shape,
        np.array([crop.box for crop in crops], np.float32).reshape(-1, 4),
        np.array(brightness, np.float32) / 255,
        np.array(brightness, np.int64) % 3,
        crops,
    )


def find_soft_regions(image, size=28):
    """The same as probabilities on the boxes' grids."""
    found = find_regions(image)
    grids = []
    for crop in found.masks:
        steps = [(np.arange(size) + 0.5) * side / size - 0.5 for side in crop.mask.shape]
        mesh = np.meshgrid(*steps, indexing="ij")
        grids.append(ndimage.map_coordinates(crop.mask.astype(np.float32), mesh, order=1, mode="nearest"))
    return replace(found, masks=np.array(grids, np.float32).reshape(-1, size, size))


def described(cells):
    """What does not depend on the order of cells with equal scores."""
    return sorted(
        (crop.box, crop.area, crop.mask.tobytes(), float(score), int(kind))
        for crop, score, kind in zip(cells.crops, cells.scores, cells.classes, strict=True)
    )


def assert_equal_cells(first, second):
    assert (first.height, first.width) == (second.height, second.width)
    assert np.array_equal(first.scores, second.scores)
    assert np.array_equal(first.classes, second.classes)
    for a, b in zip(first.crops, second.crops, strict=True):
        assert a.tight().box == b.tight().box
        assert np.array_equal(a.tight().mask, b.tight().mask)


def label_image(cells):
    labels = np.zeros((cells.height, cells.width), int)
    for number, crop in enumerate(cells.crops, start=1):
        labels[crop.slices][crop.mask] = number
    return labels


def best_ious(cells, truth):
    """The best IoU of each true region with a cell."""
    regions, count = ndimage.label(truth)
    labels = label_image(cells)
    best = []
    for number in range(1, count + 1):
        inside = regions == number
        overlaps = np.bincount(labels[inside], minlength=len(cells) + 1)[1:]
        sizes = np.bincount(labels.ravel(), minlength=len(cells) + 1)[1:]
        best.append((overlaps / (inside.sum() + sizes - overlaps)).max(initial=0))
    return np.array(best)


@pytest.mark.parametrize("policy", ["score", "smaller", "larger"])
@pytest.mark.parametrize("soft", [False, True])
def test_an_image_that_fits_gives_exactly_what_it_gives_untiled(policy, soft, monkeypatch):
    generator = np.random.default_rng(0)
    count, size = 100, 80
    corners = generator.uniform(0, size - 20, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(3, 20, (count, 2))], axis=1).astype(np.float32)
    masks = generator.uniform(0, 1, (count, 14, 14)).astype(np.float32)
    if not soft:
        masks = [MaskCrop(int(y), int(x), mask > 0.4).tight() for (x, y), mask in zip(corners, masks, strict=True)]
    found = Detections(
        size, size, boxes, generator.uniform(0, 1, count).astype(np.float32), generator.integers(0, 3, count), masks
    )
    params = PostprocessParams((0.2, 0.3, 0.1), (0.4, 0.5, 0.6), (5, 0, 9), "box*mask", overlap_policy=policy)
    image = np.zeros((size, size), np.uint8)
    contested = 0
    for change in [
        {},
        {"nms_iou": 0.3, "nms_containment": 0.6},
        {"largest_component": True},
        {"fill_holes": True, "largest_component": True, "vote": False},
    ]:
        expected = postprocess(found, replace(params, **change))
        tiled = segment_tiled(lambda tile: found, image, replace(params, **change), progress=False)
        assert_equal_cells(tiled, expected)
        with monkeypatch.context() as patch:
            patch.setattr(nms, "LARGE_IMAGE", 0)
            large = segment_tiled(lambda tile: found, image, replace(params, **change), progress=False)
        assert isinstance(large.crops, list)
        assert_equal_cells(large, expected)
        contested += len(expected)
    assert contested > 80


@pytest.mark.parametrize(("tile", "overlap"), [(64, 24), (90, 30), (50, 36), (300, 20)])
def test_cells_smaller_than_the_overlap_are_found_once_and_whole(tile, overlap):
    image = many_discs(1, 300, 211, 260)
    expected = postprocess(find_regions(image), PLAIN)
    assert len(expected) > 80
    tiled = segment_tiled(find_regions, image, PLAIN, tile=tile, overlap=overlap, progress=False)
    assert described(tiled) == described(expected)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (-0.3, 0.6)])
def test_masks_of_probabilities_are_the_same_within_a_rounding_of_their_boxes(offset):
    image = many_discs(0, 300, 211, 260)
    params = replace(PLAIN, mask_offset=offset)
    expected = postprocess(find_soft_regions(image), params)
    tiled = segment_tiled(find_soft_regions, image, params, tile=90, overlap=30, progress=False)
    assert len(tiled) == len(expected)
    difference = (label_image(tiled) > 0) != (label_image(expected) > 0)
    assert difference.sum() <= 5
    assert best_ious(tiled, label_image(expected) > 0).min() > 0.95


def snake(height=200, width=300):
    """A long region through most tiles, a ring as large as several, and a small disc."""
    image = np.zeros((height, width), np.uint8)
    x = np.arange(10, 290)
    for offset in range(6):
        image[(50 + 30 * np.sin(x / 40)).astype(int) + offset, x] = 200
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(rows - 145, columns - 80)
    image[(distance <= 45) & (distance >= 36)] = 150
    image[np.hypot(rows - 150, columns - 220) <= 8] = 180
    return image


@pytest.mark.parametrize(("tile", "overlap"), [(64, 24), (100, 30), (80, 12)])
def test_cells_larger_than_a_tile_are_put_together(tile, overlap):
    image = snake()
    expected = postprocess(find_regions(image), PLAIN)
    assert len(expected) == 3
    tiled = segment_tiled(find_regions, image, PLAIN, tile=tile, overlap=overlap, progress=False)
    assert described(tiled) == described(expected)
    # Each piece has a grid of its own, so that a thin cell is not lost in one grid over all of it.
    for params in (PLAIN, replace(PLAIN, largest_component=True)):
        soft = segment_tiled(find_soft_regions, image, params, tile=tile, overlap=overlap, progress=False)
        assert len(soft) == 3
        assert best_ious(soft, image).min() > 0.8


def test_a_bar_across_a_seam_is_joined_from_probabilities():
    image = np.zeros((80, 200), np.uint8)
    image[30:50, 40:170] = 200
    cells = segment_tiled(find_soft_regions, image, PLAIN, tile=120, overlap=40, progress=False)
    assert len(cells) == 1
    assert best_ious(cells, image).min() > 0.93
    assert cells.scores[0] == pytest.approx(200 / 255)


def test_parts_of_a_large_cell_stay_where_tiles_do_not_overlap():
    image = np.zeros((80, 200), np.uint8)
    image[30:50, 40:170] = 200
    cells = segment_tiled(find_regions, image, PLAIN, tile=100, overlap=0, progress=False)
    assert sorted(crop.box for crop in cells.crops) == [(40, 30, 100, 50), (100, 30, 170, 50)]


@pytest.mark.parametrize("shift", [-1.5, 1.5])
def test_tiles_that_disagree_on_the_centre_find_a_cell_once(shift):
    """With one shift both tiles hold the cell for theirs, with the other neither does."""
    image = drawn([(99.5, 40, 9, 200), (30, 40, 9, 200), (170, 40, 9, 200)], 80, 200)
    first, _second = tile_grid(80, 200, 120, 40)
    assert first.core[2] == 100  # where the disc's centre is, too
    moves = iter([shift, -shift])

    def detect(tile):
        found = find_regions(tile)
        return replace(found, boxes=found.boxes + np.array([next(moves), 0] * 2, np.float32))

    cells = segment_tiled(detect, image, PLAIN, tile=120, overlap=40, progress=False)
    assert len(cells) == 3
    assert best_ious(cells, image).min() == 1


def test_what_one_tile_sees_at_its_border_only_does_not_stand_beside_the_whole():
    """A network may see something odd in the sliver of a cell; nobody else sees it there."""
    image = drawn([(100, 40, 12, 200)], 80, 201)

    def detect(tile):
        found = find_regions(tile)
        sliver = found.boxes[:, 2] - found.boxes[:, 0] < 24
        crops = [
            MaskCrop(0, 0, np.ones((9, 9), bool)) if odd else crop
            for odd, crop in zip(sliver, found.masks, strict=True)
        ]
        return replace(found, masks=crops)

    for left in range(0, 60, 4):
        part = image[:, left:]
        cells = segment_tiled(detect, part, PLAIN, tile=90, overlap=40, progress=False)
        assert [crop.area for crop in cells.crops] == [np.count_nonzero(part)]


def test_the_whole_image_votes_on_its_class():
    bright, dark = 102, 101  # classes 0 and 2
    discs = [(20 + 25 * i, 20, 6, bright) for i in range(9)] + [(20, 20 + 25 * i, 6, dark) for i in range(1, 6)]
    image = drawn(discs, 160, 260)
    params = PostprocessParams((0.1, 0.1, 0.99))
    expected = postprocess(find_regions(image), params)
    assert set(expected.classes) == {0}
    tiled = segment_tiled(find_regions, image, params, tile=70, overlap=30, progress=False)
    assert described(tiled) == described(expected)
    assert len(tiled) == 14


def test_duplicates_and_overlaps_are_settled_across_seams():
    # A disc with a part of it detected, too, on the other side of the seam.
    image = drawn([(100, 40, 12, 200)], 80, 200)

    def detect(tile):
        found = find_regions(tile)
        if len(found) == 0:
            return found
        crop = found.masks[0]
        half = MaskCrop(crop.top, crop.left, crop.mask.copy())
        half.mask[:, : half.mask.shape[1] // 2] = False
        half = half.tight()
        return Detections(
            found.height,
            found.width,
            np.array([crop.box, half.box], np.float32),
            np.array([0.9, 0.8], np.float32),
            np.zeros(2, np.int64),
            [crop, half],
        )

    for overlap in (40, 60):
        once = replace(PLAIN, nms_containment=0.5)
        cells = segment_tiled(detect, image, once, tile=120, overlap=overlap, progress=False)
        assert [crop.area for crop in cells.crops] == [np.count_nonzero(image)]
        cells = segment_tiled(detect, image, PLAIN, tile=120, overlap=overlap, progress=False)
        assert len(cells) == 1  # the better one took all pixels


def test_all_tiles_are_stretched_alike():
    image = np.linspace(0, 60000, 200 * 100).reshape(200, 100).astype(np.uint16)
    seen = []
    nothing = Detections(60, 60, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), [])

    def detect(tile):
        assert tile.dtype == np.uint8
        seen.append((int(tile.min()), int(tile.max())))
        return nothing

    cells = segment_tiled(detect, image, PostprocessParams(), tile=60, overlap=20, progress=False)
    assert len(cells) == 0
    assert (cells.height, cells.width) == (200, 100)
    assert seen[0][0] == 0
    assert seen[0][1] < 90
    assert seen[-1][0] > 165
    assert seen[-1][1] == 255


def test_detections_of_another_size_are_refused():
    nothing = Detections(9, 9, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), [])
    with pytest.raises(ValueError, match="9 × 9 pixels, the tile has 60 × 60"):
        segment_tiled(lambda tile: nothing, np.zeros((80, 90), np.uint8), PLAIN, tile=60, overlap=9, progress=False)


def test_the_bar_is_optional(capsys, monkeypatch):
    monkeypatch.setattr("cellseg_d2.io.progress.PAUSE", 0)
    image = many_discs(0, 20, 100, 100)
    segment_tiled(find_regions, image, PLAIN, tile=60, overlap=20, progress=False)
    assert capsys.readouterr().err == ""
    segment_tiled(find_regions, image, PLAIN, tile=60, overlap=20)
    assert "4 of 4 tiles" in capsys.readouterr().err


def test_memory_does_not_grow_with_the_image(monkeypatch):
    """A mosaic that repeats itself: the image is never made, and nothing of its size is."""
    monkeypatch.setattr(nms, "LARGE_IMAGE", 0)
    block = many_discs(0, 60, 200, 200)
    block[:3], block[:, :3] = 0, 0  # nothing goes over the border of a block

    class Mosaic(ImageSource):
        def __init__(self, side):
            self.height, self.width, self.dtype = side, side, np.dtype(np.uint8)

        def _read(self, rows, columns):
            y, x = np.arange(rows.start, rows.stop) % 200, np.arange(columns.start, columns.stop) % 200
            return block[np.ix_(y, x)]

    def peak(side):
        mosaic = Mosaic(side)
        tracemalloc.start()
        try:
            cells = segment_tiled(sparse, mosaic, PLAIN, tile=256, overlap=40, progress=False)
            return len(cells), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def sparse(tile):
        # The brightest of each block, so that the cells take little memory themselves.
        return find_regions(np.where(tile == block.max(), tile, 0))

    small, large = peak(600), peak(2400)
    assert large[0] == 16 * small[0] > 0
    assert large[1] < 2400 * 2400
    assert large[1] < 2 * small[1]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(40, 90), st.integers(20, 38))
def test_any_image_of_small_cells_in_any_grid(seed, tile, overlap):
    image = many_discs(seed, 60, 120, 130, radius=(2.0, 8.0))
    expected = postprocess(find_regions(image), PLAIN)
    tiled = segment_tiled(find_regions, image, PLAIN, tile=tile, overlap=overlap, progress=False)
    assert described(tiled) == described(expected)


def test_masks_put_together_are_made_when_asked_for():
    box = np.array([[2, 2, 6, 6], [10, 2, 14, 6]], np.float32)
    own = Detections(
        20, 20, box, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), np.ones((2, 4, 4), np.float32)
    )
    joined = SoftCrop(2, 2, np.ones((4, 9), np.float32))
    assert MergedDetections(own, {}).pasted() is None
    masks = MergedDetections(own, {0: joined}).pasted()
    assert len(masks) == 2
    assert masks[0] is joined
    assert [mask.left for mask in masks[:]] == [2, masks[1].left]
    assert masks[1].at_least(0.5).area == 16
