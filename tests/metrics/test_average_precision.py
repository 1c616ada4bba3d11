"""COCO's and LIVECell's AP: figures that one can work out, and pycocotools' evaluation as the reference."""

import contextlib
import copy
import io
import json
import time

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.coco import to_rle
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.average_precision import evaluate_coco

SIZE = 200


def rectangle(top, left, height, width):
    return crop_to_coco(MaskCrop(top, left, np.ones((height, width), bool)), SIZE, SIZE)


def disk(y, x, radius):
    rows, columns = np.ogrid[:SIZE, :SIZE]
    return crop_to_coco(MaskCrop.from_full((rows - y) ** 2 + (columns - x) ** 2 <= radius**2), SIZE, SIZE)


def annotation(number, rle, image=1, category=1):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": rle,
        "area": int(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).tolist(),
    }


def dataset(annotations, images=(1,), categories=("cell",)):
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE, "width": SIZE} for i in images],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, start=1)],
    }


def detection(rle, score, image=1, category=1, **more):
    return {"image_id": image, "category_id": category, "segmentation": rle, "score": score, **more}


@pytest.fixture(scope="module")
def crowded():
    """Three images with 250 disks of two types each, and detections that are moved, lost or invented."""
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in (1, 2, 3):
        for _ in range(250):
            y, x, radius, category = *rng.integers(0, SIZE, 2), rng.integers(4, 24), int(rng.integers(1, 3))
            annotations.append(annotation(len(annotations) + 1, disk(y, x, radius), image, category))
            if rng.random() < 0.9:
                moved = disk(*(np.array([y, x]) + rng.integers(-2, 3, 2)), max(radius + rng.integers(-1, 2), 1))
                if coco_mask.area(moved):
                    results.append(detection(moved, float(rng.random()), image, category))
            if rng.random() < 0.2:
                results.append(detection(disk(*rng.integers(0, SIZE, 2), 8), float(rng.random()), image, category))
    return dataset(annotations, (1, 2, 3), ("cort", "astro")), results


def reference(truth, results, kind, max_detections, edges):
    """pycocotools, with the figures read from its arrays (its own summary fixes AP at 100 detections)."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        results = copy.deepcopy(results)
        for result in results if kind == "bbox" else ():  # else the areas would be those of the masks
            result["bbox"] = coco_mask.toBbox(result.pop("segmentation")).tolist()
        evaluation = COCOeval(coco, coco.loadRes(results), kind)
        evaluation.params.maxDets = max_detections
        evaluation.params.areaRng = [[0, 1e10], [0, edges[0]], edges, [edges[1], 1e10]]
        evaluation.evaluate()
        evaluation.accumulate()

    def mean(values):
        return 100 * values[values > -1].mean()

    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    figures = {"AP": mean(precision[..., 0, -1]), "AP50": mean(precision[0, ..., 0, -1])}
    figures["AP75"] = mean(precision[5, ..., 0, -1])
    for area, size in enumerate("sml", start=1):
        figures[f"AP{size}"] = mean(precision[..., area, -1])
        figures[f"AR{size}"] = mean(recall[..., area, -1])
    for index, number in enumerate(max_detections):
        figures[f"AR{number}"] = mean(recall[..., 0, index])
    figures["AP-cort"], figures["AP-astro"] = mean(precision[:, :, 0, 0, -1]), mean(precision[:, :, 1, 0, -1])
    return figures


@pytest.mark.parametrize(
    ("protocol", "max_detections", "edges"),
    [("livecell", [100, 500, 2000], [324, 961]), ("coco", [1, 10, 100], [1024, 9216])],
)
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_equals_pycocotools(crowded, protocol, max_detections, edges, kind):
    truth, results = crowded
    if protocol == "coco":  # else nothing is large enough for a figure
        truth = copy.deepcopy(truth)
        truth["annotations"][0] = annotation(1, rectangle(0, 0, 150, 150))
        results = [*results, detection(rectangle(1, 0, 150, 150), 0.9)]
    expected = reference(truth, results, kind, max_detections, edges)
    ours = evaluate_coco(truth, results, protocol, kinds=[kind])[kind]
    assert ours == pytest.approx(expected, abs=1e-9)
    assert 1 < ours["AP"] < 99


def test_perfect_detections():
    boxes = [rectangle(0, 0, 10, 10), rectangle(20, 20, 25, 25), rectangle(60, 60, 40, 40)]
    truth = dataset([annotation(i, box) for i, box in enumerate(boxes)])  # ids from 0, which must not matter
    scores = evaluate_coco(truth, [detection(box, 0.9) for box in boxes])
    for kind in ("bbox", "segm"):
        assert set(scores[kind]) == {
            *("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "AR500", "AR2000", "ARs", "ARm", "ARl")
        }
        assert all(value == pytest.approx(100) for value in scores[kind].values())


def test_known_iou_gives_known_ap():
    # 80 of 100 pixels: found at .50 … .75 (IoU .8 counts for COCO, whose thresholds are not strict).
    truth = dataset([annotation(1, rectangle(0, 0, 10, 10))])
    scores = evaluate_coco(truth, [detection(rectangle(0, 0, 8, 10), 0.5)])["segm"]
    assert scores["AP"] == pytest.approx(70)
    assert (scores["AP50"], scores["AP75"]) == (pytest.approx(100), pytest.approx(100))


def test_ap_counts_more_than_100_detections():
    cells = [rectangle(10 * i, 10 * j, 8, 8) for i in range(20) for j in range(20)]
    truth = dataset([annotation(i, cell) for i, cell in enumerate(cells, start=1)])
    results = [detection(cell, 0.9) for cell in cells]
    livecell = evaluate_coco(truth, results, "livecell")["segm"]
    assert livecell["AP"] == pytest.approx(100)
    assert (livecell["AR100"], livecell["AR500"]) == (pytest.approx(25), pytest.approx(100))
    coco = evaluate_coco(truth, results, "coco")["segm"]
    assert coco["AR100"] == pytest.approx(25)
    assert coco["AP"] < 30


@pytest.mark.parametrize(("area", "sizes"), [(323, "s"), (324, "sm"), (325, "m"), (961, "ml"), (962, "l")])
def test_livecell_sizes(area, sizes):
    mask = np.zeros((SIZE, SIZE), bool)
    mask.ravel()[:area] = True
    rle = crop_to_coco(MaskCrop.from_full(mask), SIZE, SIZE)
    scores = evaluate_coco(dataset([annotation(1, rle)]), [detection(rle, 0.9)])["segm"]
    for size in "sml":
        assert scores[f"AP{size}"] == pytest.approx(100) if size in sizes else np.isnan(scores[f"AP{size}"])


def test_mask_area_and_not_box_area_sorts_detections():
    # A false alarm of 200 px² in a box of 40 × 40: as a mask it is small, so it must not count among the large ones.
    large, thin = rectangle(0, 0, 40, 40), np.eye(SIZE, dtype=bool)
    thin[50:, :] = False
    thin = crop_to_coco(MaskCrop.from_full(np.roll(thin, 100, axis=0)), SIZE, SIZE)
    results = [detection(thin, 0.99, bbox=[0, 100, 50, 50]), detection(large, 0.5, bbox=[0, 0, 40, 40])]
    scores = evaluate_coco(dataset([annotation(1, large)]), results)
    assert scores["segm"]["APl"] == pytest.approx(100)
    assert scores["bbox"]["APl"] == pytest.approx(50)


def test_given_boxes_are_used():
    truth = dataset([annotation(1, rectangle(0, 0, 10, 10))])
    scores = evaluate_coco(truth, [detection(rectangle(0, 0, 10, 10), 0.9, bbox=[50, 50, 10, 10])])
    assert (scores["segm"]["AP"], scores["bbox"]["AP"]) == (pytest.approx(100), 0)


def test_nothing_detected_is_zero_and_nothing_to_find_is_nan():
    scores = evaluate_coco(dataset([annotation(1, rectangle(0, 0, 10, 10))]), [])
    for kind in ("bbox", "segm"):
        assert (scores[kind]["AP"], scores[kind]["APs"], scores[kind]["AR2000"]) == (0, 0, 0)
        assert np.isnan(scores[kind]["APl"])
    assert np.isnan(evaluate_coco(dataset([]), [])["segm"]["AP"])


def test_only_some_images():
    cell = rectangle(0, 0, 10, 10)
    truth = dataset([annotation(1, cell, image=1), annotation(2, cell, image=2)], images=(1, 2))
    results = [detection(cell, 0.9, image=1)]
    assert evaluate_coco(truth, results)["segm"]["AP"] == pytest.approx(50, abs=1)
    assert evaluate_coco(truth, results, image_ids=[1])["segm"]["AP"] == pytest.approx(100)
    assert evaluate_coco(truth, results, image_ids=[2])["segm"]["AP"] == 0


def test_files_dict_annotations_and_polygons(tmp_path):
    polygon = [[10, 10, 40, 10, 40, 30, 10, 30]]
    truth = dataset({"7": {"id": 7, "image_id": 1, "category_id": 1, "segmentation": polygon}})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([detection(rectangle(10, 10, 20, 30), 0.9)]))
    scores = evaluate_coco(tmp_path / "truth.json", str(tmp_path / "results.json"))
    assert (scores["segm"]["AP"], scores["bbox"]["AP"]) == (pytest.approx(100), pytest.approx(100))


def test_arguments_stay_as_they_are_and_nothing_is_printed(crowded, capfd):
    before = copy.deepcopy(crowded)
    evaluate_coco(*crowded)
    assert before == crowded
    assert capfd.readouterr() == ("", "")


def test_segmentations_of_all_kinds():
    expected = rectangle(10, 10, 20, 30)
    uncompressed = {
        "size": [SIZE, SIZE],
        "counts": [10 * SIZE + 10, *([20, 180] * 29), 20, SIZE * SIZE - 39 * SIZE - 30],
    }
    for segmentation in ([[10, 10, 40, 10, 40, 30, 10, 30]], uncompressed, expected):
        assert np.array_equal(coco_mask.decode(to_rle(segmentation, SIZE, SIZE)[0]), coco_mask.decode(expected))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([detection(rectangle(0, 0, 5, 5), 0.5, image=9)], "lacks: 1, such as image_id 9"),
        ([detection(rectangle(0, 0, 5, 5), 0.5, category=0)], "categories .* lacks: 1, such as category_id 0"),
        ([{"image_id": 1, "category_id": 1}], "detection 0 .* lacks score, segmentation"),
        ([3], "detection 0"),
        ({"annotations": []}, "not COCO results"),
    ],
)
def test_results_that_do_not_fit(results, message):
    with pytest.raises(CellSegError, match=message):
        evaluate_coco(dataset([]), results)


def test_wrong_ground_truth(tmp_path):
    with pytest.raises(CellSegError, match="needs images, annotations and categories"):
        evaluate_coco([], [])
    with pytest.raises(CellSegError, match="does not exist"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CellSegError, match=r"bad\.json cannot be read as JSON"):
        evaluate_coco(tmp_path / "bad.json", [])
    with pytest.raises(ValueError, match="protocol"):
        evaluate_coco(dataset([]), [], protocol="lvis")


def test_real_livecell_truth_against_itself(shared_data):
    """20 real images: polygons, cells that overlap, more than 1000 in an image."""
    folder = shared_data / "LIVECell_dataset_2021" / "annotations" / "LIVECell"
    start, cells = time.perf_counter(), 0
    for split in ("val", "test"):
        truth = read_coco(folder / f"livecell_coco_{split}.json")
        results = []
        for a, rle, _ in truth.masks():
            results.append({**{key: a[key] for key in ("image_id", "category_id")}, "segmentation": rle, "score": 0.9})
        assert evaluate_coco(truth, results, kinds=["segm"])["segm"]["AP"] == pytest.approx(100)
        cells += len(results)
    print(f"{cells} real cells in {time.perf_counter() - start:.1f} s")


@pytest.mark.parametrize("said", [None, False, 0.0, 0, "left out"])
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_a_cell_is_one_in_whichever_way_it_is_not_marked_as_a_crowd(said, kind):
    own = annotation(1, disk(50, 50, 20))
    if said == "left out":
        del own["iscrowd"]
    else:
        own["iscrowd"] = said
    scores = evaluate_coco(dataset([own]), [detection(disk(50, 50, 20), 0.9)], kinds=(kind,))
    assert scores[kind]["AP"] == pytest.approx(100)


def test_a_region_marked_true_is_a_crowd():
    own = [annotation(1, disk(50, 50, 20)), annotation(2, disk(150, 150, 20)) | {"iscrowd": True}]
    found = [detection(disk(150, 150, 20), 0.9), detection(disk(50, 50, 20), 0.8)]
    assert evaluate_coco(dataset(own), found)["segm"]["AP"] == pytest.approx(100)
