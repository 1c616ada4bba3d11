"""From detections to cells, on rectangles whose result can be told in advance."""

import time
from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.detections.detections import Detections, vote_class
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.components import components
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess import nms
from cellseg_d2.postprocess.nms import mask_nms, mask_pairs
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess


@pytest.fixture(autouse=True, params=["as a whole", "cell by cell"])
def _way(request, monkeypatch):
    """Small images, too, are worked on in both ways."""
    if request.param == "cell by cell":
        monkeypatch.setattr(nms, "LARGE_IMAGE", 0)


def rectangles(*boxes, scores, classes=None):
    crops = [MaskCrop(y0, x0, np.ones((y1 - y0, x1 - x0), bool)) for x0, y0, x1, y1 in boxes]
    classes = np.zeros(len(crops), np.int64) if classes is None else np.array(classes)
    return Detections(50, 60, np.array(boxes, np.float32).reshape(-1, 4), np.array(scores), classes, crops)


def test_the_better_score_keeps_the_contested_pixels():
    cells = postprocess(rectangles((0, 0, 10, 10), (5, 0, 15, 10), scores=[0.6, 0.9]), PostprocessParams())
    assert cells.scores.tolist() == [0.9, 0.6]
    assert [crop.box for crop in cells.crops] == [(5, 0, 15, 10), (0, 0, 5, 10)]


def test_the_smaller_mask_keeps_the_contested_pixels():
    params = PostprocessParams(overlap_policy="smaller")
    cells = postprocess(rectangles((0, 0, 20, 20), (5, 5, 8, 8), scores=[0.9, 0.6]), params)
    assert [crop.area for crop in cells.crops] == [400 - 9, 9]


def test_no_pixel_is_given_twice():
    generator = np.random.default_rng(3)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in generator.integers(1, 20, (40, 4))]
    cells = postprocess(rectangles(*boxes, scores=generator.uniform(0.5, 1, 40)), PostprocessParams())
    assert sum(crop.to_full(50, 60).astype(int) for crop in cells.crops).max() == 1


def test_the_label_image_holds_the_cells_that_are_left():
    detections = rectangles((0, 0, 10, 10), (5, 0, 15, 10), (40, 40, 42, 42), scores=[0.6, 0.9, 0.95])
    cells = postprocess(detections, PostprocessParams(min_areas=(20,), overlap_policy="larger"))
    expected = np.zeros((50, 60), int)
    expected[0:10, 0:10] = 2
    expected[0:10, 5:15] = 1
    assert np.array_equal(cells.label_image(), expected)
    assert np.array_equal(replace(cells, crops=list(cells.crops)).label_image(), expected)


def test_a_cell_that_lost_all_its_pixels_is_gone():
    cells = postprocess(rectangles((0, 0, 10, 10), (2, 2, 8, 8), scores=[0.9, 0.6]), PostprocessParams())
    assert len(cells) == 1


def test_the_vote_decides_the_type_and_its_thresholds():
    detections = rectangles((0, 0, 5, 5), (10, 0, 15, 5), (20, 0, 25, 5), scores=[0.5, 0.6, 0.95], classes=[0, 0, 1])
    assert vote_class(detections) == 0
    params = PostprocessParams(score_thresholds=(0.55, 0.99))
    assert postprocess(detections, params).classes.tolist() == [0, 0]
    alone = PostprocessParams(score_thresholds=(0.55, 0.9), vote=False)
    assert postprocess(detections, alone).classes.tolist() == [1, 0]


def test_minimum_areas_count_what_is_left_after_overlaps():
    detections = rectangles((0, 0, 10, 10), (5, 0, 15, 10), scores=[0.6, 0.9])
    assert len(postprocess(detections, PostprocessParams(min_areas=(51,)))) == 1
    assert len(postprocess(detections, PostprocessParams(min_areas=(50,)))) == 2


def test_a_share_of_the_median_area_suits_small_and_large_cells():
    for side in (4, 8):
        large = [(x, y, x + side, y + side) for x in (0, 10, 20) for y in (0, 10)]
        specks = [(40, y, 40 + side // 2, y + side // 2) for y in (0, 10)]  # a quarter of the area
        detections = rectangles(*large, *specks, (40, 40, 41, 41), scores=[0.9] * 8 + [0.4])
        for share, count in {0: 8, 0.2: 8, 0.25: 8, 0.3: 6}.items():
            assert len(postprocess(detections, PostprocessParams(min_area_share=share))) == count


def test_the_median_area_is_that_of_what_could_be_a_cell():
    # Four specks below the minimum in pixels, and four of which the model is not sure.
    specks = [(x, 30, x + 2, 32) for x in (0, 5, 10, 15)] + [(x, 40, x + 3, 43) for x in (0, 5, 10, 15)]
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 44, 7)]
    detections = rectangles(*boxes, *specks, scores=[0.9] * 7 + [0.2] * 4)
    params = PostprocessParams(min_areas=(9,), min_area_share=0.3)
    assert [crop.area for crop in postprocess(detections, params).crops] == [100, 100]
    assert len(postprocess(detections, replace(params, min_area_share=0.28))) == 3


@pytest.mark.parametrize(("doubtful", "needed"), [(0, 0.4), (40, 0.4), (90, 0.6), (160, 0.7), (4000, 0.94)])
def test_a_cell_of_doubtful_area_needs_a_higher_score(doubtful, needed):
    """Forty pixels of ninety lack a third of the diameter: a third of what is left between the threshold and 1."""
    params = PostprocessParams(score_thresholds=(0.4,), doubtful_areas=(doubtful,))
    for score, count in ((needed - 0.01, 1), (needed + 0.01, 2)):
        detections = rectangles((0, 0, 8, 5), (10, 10, 60, 50), scores=[score, 0.8])
        assert len(postprocess(detections, params)) == count
    above_one = PostprocessParams(score_thresholds=(1.5,), doubtful_areas=(doubtful,))
    assert len(postprocess(rectangles((0, 0, 8, 5), scores=[1.0]), above_one)) == 0


def test_what_is_too_unsure_for_its_size_takes_no_pixel_from_others():
    detections = rectangles((0, 0, 20, 20), (5, 5, 10, 10), scores=[0.6, 0.65])
    params = PostprocessParams(doubtful_areas=(100,), overlap_policy="smaller")
    assert [crop.area for crop in postprocess(detections, params).crops] == [400]
    cells = postprocess(detections, replace(params, doubtful_areas=(30,)))
    assert sorted(crop.area for crop in cells.crops) == [25, 375]


def test_masks_that_are_less_sure_are_drawn_further_out():
    masks = np.zeros((3, 10, 10), np.float32)  # sure, unsure, and nothing at all; 40 of 100 pixels at 0.4
    masks[0, :4], masks[1, :4], masks[1, 4:6] = 1, 0.4, 0.8
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32)
    detections = Detections(50, 60, boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, np.int64), masks)
    areas = {}
    for kind in ("fixed", "dice"):
        cells = postprocess(detections, PostprocessParams(mask_thresholding=kind, mask_thresholds=(0.55,)))
        areas[kind] = [crop.area for crop in cells.crops]
    # Expected of the second: 2 · 32 / (60 + 32) = 0.70, more than 2 · 16 / (20 + 32); 0.55 · 0.70 is below 0.4.
    assert areas == {"fixed": [40, 20], "dice": [40, 60]}


def test_nothing_detected_gives_no_cells():
    empty = Detections(5, 6, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros((0, 28, 28), np.float32))
    assert len(postprocess(empty, PostprocessParams())) == 0
    assert vote_class(empty) is None


def test_too_few_thresholds_are_an_error():
    with pytest.raises(CellSegError, match="2 values"):
        postprocess(rectangles((0, 0, 5, 5), scores=[0.9], classes=[2]), PostprocessParams(score_thresholds=(0.1, 0.2)))


def test_box_times_mask_ranks_unsure_masks_lower():
    masks = np.full((2, 28, 28), 0.6, np.float32)
    masks[1] = 1.0
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10]], np.float32)
    detections = Detections(50, 60, boxes, np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64), masks)
    assert postprocess(detections, PostprocessParams()).scores.tolist() == pytest.approx([0.9, 0.8])
    cells = postprocess(detections, PostprocessParams(ranking="box*mask"))
    assert cells.scores.tolist() == pytest.approx([0.8, 0.9 * 0.6])
    # At the edge of its box a mask of 0.6 fades below 0.5, the sure one does not.
    assert cells.crops[0].box == (5, 0, 15, 10)
    assert len(postprocess(detections, PostprocessParams(ranking="box*mask", score_thresholds=(0.6,)))) == 1


def test_mask_thresholds_by_class():
    ramp = np.tile(np.linspace(0, 1, 28, dtype=np.float32), (2, 28, 1))
    boxes = np.array([[0, 0, 28, 28], [30, 0, 58, 28]], np.float32)
    detections = Detections(50, 60, boxes, np.array([0.9, 0.8]), np.array([0, 1]), ramp)
    params = PostprocessParams(mask_thresholds=(0.25, 0.75), vote=False)
    assert [round(crop.area / 28) for crop in postprocess(detections, params).crops] == [21, 7]


def nms_boxes(**params):
    """A 20 × 20 square, the same moved by 5 (IoU 0.6), and a 5 × 20 strip inside the first (IoU 0.25)."""
    detections = rectangles((0, 0, 20, 20), (5, 0, 25, 20), (0, 0, 5, 20), scores=[0.9, 0.8, 0.7])
    return postprocess(detections, PostprocessParams(**params)).scores.tolist()


def test_nms_by_iou_and_by_containment():
    assert nms_boxes() == [0.9, 0.8]  # the strip lost all its pixels
    assert nms_boxes(overlap_policy="smaller") == [0.9, 0.8, 0.7]
    assert nms_boxes(overlap_policy="smaller", nms_iou=0.6) == [0.9, 0.8, 0.7]  # not above 0.6
    assert nms_boxes(overlap_policy="smaller", nms_iou=0.59) == [0.9, 0.7]
    assert nms_boxes(overlap_policy="smaller", nms_containment=0.8) == [0.9, 0.8]
    assert nms_boxes(overlap_policy="smaller", nms_containment=0.7) == [0.9]


def test_what_is_suppressed_suppresses_nothing():
    # 1 overlaps 0, and 2 overlaps 1 but not 0: with 1 gone, 2 stays.
    detections = rectangles((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10), scores=[0.9, 0.8, 0.7])
    assert postprocess(detections, PostprocessParams(nms_iou=0.3)).scores.tolist() == [0.9, 0.7]


def test_what_is_below_a_threshold_suppresses_nothing():
    detections = rectangles((0, 0, 5, 10), (0, 0, 10, 10), scores=[0.9, 0.8])
    params = PostprocessParams(nms_containment=0.5, min_areas=(60,))
    assert [crop.area for crop in postprocess(detections, params).crops] == [100]


def test_pairs_and_nms_against_a_direct_computation():
    generator = np.random.default_rng(0)
    crops = [
        MaskCrop(int(y), int(x), generator.uniform(size=(h, w)) < 0.7).tight()
        for y, x, h, w in zip(*generator.integers(1, 12, (4, 300)) * [[3], [4], [1], [1]], strict=True)
    ]
    full = np.stack([crop.to_full(60, 70).ravel() for crop in crops]).astype(int)
    intersection = full @ full.T
    areas = full.sum(axis=1)
    iou = intersection / np.maximum(areas[:, None] + areas[None] - intersection, 1)
    containment = intersection / np.maximum(np.minimum(areas[:, None], areas[None]), 1)
    pairs = mask_pairs(crops, 60, 70)
    first, second = np.nonzero(np.triu(intersection, k=1))
    assert len(first) > 1000
    assert np.array_equal(pairs.first, first)
    assert np.array_equal(pairs.second, second)
    assert np.array_equal(pairs.iou, iou[first, second])
    assert np.array_equal(pairs.containment, containment[first, second])

    present = generator.uniform(size=300) < 0.8
    kept = []
    for i in np.flatnonzero(present):
        if all(iou[i, j] <= 0.2 and containment[i, j] <= 0.5 for j in kept):
            kept.append(i)
    assert np.flatnonzero(mask_nms(pairs, present, 0.2, 0.5)).tolist() == kept
    assert 20 < len(kept) < present.sum()


def shape(*lines):
    mask = np.array([[letter == "#" for letter in line] for line in lines])
    return Detections(50, 60, np.zeros((1, 4)), np.array([0.9]), np.zeros(1, np.int64), [MaskCrop(7, 9, mask)])


def drawn(cells):
    return ["".join(".#"[int(pixel)] for pixel in line) for line in cells.crops[0].mask]


def test_holes_are_filled_and_bays_are_not():
    ring = shape("####.", "#.##.", "##.##", ".#.#.", ".#.#.")
    assert drawn(postprocess(ring, PostprocessParams(fill_holes=True))) == ["####.", "####.", "##.##", ".#.#.", ".#.#."]
    diagonal = shape(".#.", "#.#", ".#.")  # closed for 4-connected background
    assert drawn(postprocess(diagonal, PostprocessParams(fill_holes=True))) == [".#.", "###", ".#."]


def test_the_largest_component_is_8_connected():
    pieces = shape("##..#", "..#..", "....#")
    cells = postprocess(pieces, PostprocessParams(largest_component=True))
    assert drawn(cells) == ["##.", "..#"]
    assert (cells.crops[0].top, cells.crops[0].left) == (7, 9)


def test_a_cell_cut_in_two_keeps_its_larger_part():
    detections = rectangles((0, 0, 20, 4), (12, 0, 15, 30), scores=[0.6, 0.9])
    whole = PostprocessParams(largest_component=True)
    assert [crop.box for crop in postprocess(detections, whole).crops] == [(12, 0, 15, 30), (0, 0, 12, 4)]
    assert [crop.area for crop in postprocess(detections, PostprocessParams()).crops] == [90, 48 + 20]
    assert len(postprocess(detections, replace(whole, min_areas=(48,)))) == 2
    assert len(postprocess(detections, replace(whole, min_areas=(49,)))) == 1


def test_empty_masks_pass_through_every_step():
    masks = np.zeros((3, 28, 28), np.float32)
    masks[1] = 1
    boxes = np.array([[0, 0, 9, 9], [5, 5, 15, 15], [3, 3, 3, 3]], np.float32)
    detections = Detections(50, 60, boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, np.int64), masks)
    params = PostprocessParams(
        fill_holes=True, largest_component=True, nms_iou=0.5, nms_containment=0.5, ranking="box*mask"
    )
    assert [crop.area for crop in postprocess(detections, replace(params, score_thresholds=(0.0,))).crops] == [100]
    assert len(postprocess(detections.select(np.zeros(3, bool)), params)) == 0


@pytest.mark.parametrize("ranking", ["box", "box*mask"])
@pytest.mark.parametrize("policy", ["score", "smaller", "larger"])
def test_no_option_gives_a_pixel_twice(ranking, policy):
    generator = np.random.default_rng(7)
    low = generator.uniform(0, 35, (60, 2))
    boxes = np.concatenate([low, low + generator.uniform(4, 25, (60, 2))], axis=1).clip(0, 50).astype(np.float32)
    masks = generator.uniform(0, 1, (60, 14, 14)).astype(np.float32)
    detections = Detections(50, 60, boxes, generator.uniform(0, 1, 60), generator.integers(0, 2, 60), masks)
    for flags in range(4):
        params = PostprocessParams(
            score_thresholds=(0.1, 0.2), mask_thresholds=(0.4, 0.5), min_areas=(3, 10), ranking=ranking, nms_iou=0.6,
            nms_containment=0.8, overlap_policy=policy, fill_holes=bool(flags & 1), largest_component=bool(flags & 2),
            vote=False,
        )  # fmt: skip
        cells = postprocess(detections, params)
        assert len(cells) > 5
        assert sum(crop.to_full(50, 60).astype(int) for crop in cells.crops).max() == 1
        assert (np.diff(cells.scores) <= 0).all()
        assert all(crop.area >= (3, 10)[kind] for crop, kind in zip(cells.crops, cells.classes, strict=True))
        if params.largest_component:
            assert all(len(components(crop)) == 1 for crop in cells.crops)


def test_masks_are_moved_before_their_threshold():
    """Half a pixel of a soft disc is no whole pixel, so its area stays and its centre moves by as much."""
    y, x = np.mgrid[:32, :32]
    disc = np.clip(8.5 - np.hypot(x - 15.5, y - 15.5), 0, 1).astype(np.float32)
    found = Detections(
        60, 60, np.array([[10, 20, 42, 52]], np.float32), np.ones(1, np.float32), np.zeros(1, int), disc[None]
    )

    def centre(offset):
        [crop] = postprocess(found, PostprocessParams(mask_offset=offset)).crops
        rows, columns = np.nonzero(crop.mask)
        return crop.left + columns.mean(), crop.top + rows.mean()

    before = np.array(centre((0, 0)))
    for offset in ((0.5, -0.5), (-0.25, 0.75), (3, 2)):
        assert np.array(centre(offset)) - before == pytest.approx(offset, abs=0.12)


def test_parameters_survive_a_file(tmp_path):
    params = PostprocessParams(
        score_thresholds=[0.3, np.float32(0.5)], mask_thresholds=(0.45,), min_areas=np.array([30, 60]),
        min_area_share=0.25, doubtful_areas=[100], mask_thresholding="dice", ranking="box*mask", nms_iou=0.2,
        mask_offset=np.array([-0.25, 0.5]),
        nms_containment=0.75, overlap_policy="smaller",
        fill_holes=True, vote=False,
    )  # fmt: skip
    params.to_yaml(tmp_path / "postprocess.yaml", "two\nlines")
    text = (tmp_path / "postprocess.yaml").read_text()
    assert text.startswith("# two\n# lines\nTEST:\n  POSTPROCESS:\n    SCORE_THRESHOLDS: [0.3, 0.5]\n")
    assert PostprocessParams.from_yaml(tmp_path / "postprocess.yaml") == params
    (tmp_path / "part.yaml").write_text("min_areas: [7]\n")
    assert PostprocessParams.from_yaml(tmp_path / "part.yaml") == PostprocessParams(min_areas=(7,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score_treshold: [0.5]", "unknown key 'score_treshold'"),
        ("min_area_share: 1.5", "min_area_share must be a number from 0 to 1, not 1.5"),
        ("min_area_share: [0.5]", "min_area_share must be a number from 0 to 1"),
        ("score_thresholds: 0.5", "score_thresholds must be a list of numbers at least 0"),
        ("score_thresholds: []", "score_thresholds must be a list"),
        ("score_thresholds: ['0.5']", "score_thresholds must be a list of numbers"),
        ("score_thresholds: [.nan]", "score_thresholds must be a list of numbers"),
        ("mask_thresholds: [0]", "mask_thresholds must be a list of numbers above 0, at most 1"),
        ("min_areas: [1.5]", "min_areas must be a list of whole numbers"),
        ("min_areas: [true]", "min_areas must be a list of whole numbers"),
        ("doubtful_areas: [-1]", "doubtful_areas must be a list of whole numbers at least 0"),
        ("mask_thresholding: half", "mask_thresholding must be one of fixed, dice, not 'half'"),
        (
            "mask_offset: 0.5",
            "mask_offset must be two numbers of pixels, to the right and down, from -5 to 5, not 0.5",
        ),
        ("mask_offset: [0, .nan]", "mask_offset must be two numbers of pixels"),
        ("mask_offset: [1, 2, 3]", "mask_offset must be two numbers of pixels"),
        ("ranking: mask", "ranking must be one of box, box*mask, not 'mask'"),
        ("overlap_policy: [score]", "overlap_policy must be one of"),
        ("nms_iou: 0", "nms_iou must be a number above 0, at most 1"),
        ("nms_containment: high", "nms_containment must be a number"),
        ("vote: 1", "vote must be true or false, not 1"),
        ("- 1", "holds no post-processing"),
        ("", "holds no post-processing"),
        ("a: [", "is not valid YAML"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_wrong_files_are_one_sentence(text, message, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(CellSegError) as caught:
        PostprocessParams.from_yaml(tmp_path / "p.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "p.yaml"))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_wrong_numbers_of_classes(tmp_path):
    with pytest.raises(CellSegError, match="cannot be read"):
        PostprocessParams.from_yaml(tmp_path / "none.yaml")
    PostprocessParams(min_areas=(1, 2)).check_classes(["a", "b"])
    with pytest.raises(CellSegError, match="min_areas has 3 values, but the model has 2 classes"):
        PostprocessParams(min_areas=(1, 2, 3)).check_classes(["a", "b"])


def test_a_dense_image_takes_well_under_a_second():
    """800 detections on 520 × 704 with everything switched on; about 0.1 s on one core."""
    generator = np.random.default_rng(0)
    centers = generator.uniform(10, [694, 510], (800, 2))
    half = generator.uniform(6, 16, (800, 2))
    boxes = np.concatenate([centers - half, centers + half], axis=1).astype(np.float32).clip(0, [704, 520, 704, 520])
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    masks = np.repeat((1.2 - np.hypot(x, y)).clip(0, 1)[None], 800, axis=0).astype(np.float32)
    detections = Detections(520, 704, boxes, generator.uniform(0.5, 1, 800), np.zeros(800, np.int64), masks)
    params = PostprocessParams(
        ranking="box*mask", score_thresholds=(0.1,), nms_iou=0.5, nms_containment=0.9, overlap_policy="smaller",
        fill_holes=True, largest_component=True, min_areas=(30,),
    )  # fmt: skip
    times = []
    for _ in range(3):
        start = time.process_time()
        cells = postprocess(detections, params)
        times.append(time.process_time() - start)
    assert len(cells) > 400
    assert min(times) < 0.7
