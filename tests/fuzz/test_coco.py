"""COCO JSON files of any origin: the cells that were written, or a clear error."""

import copy
import json

import numpy as np
import pytest
from hypothesis import strategies as st

from cellseg_d2.datasets.coco_reader import CocoSource
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop, crop_to_coco
from cellseg_d2.metrics.average_precision import evaluate_coco
from cellseg_d2.predictions.truth import read_predictions, read_truth
from tests.fuzz.cases import fuzz

HEIGHT, WIDTH = 9, 12
SQUARE, BAR = MaskCrop(1, 2, np.ones((4, 4), bool)), MaskCrop(6, 0, np.ones((2, 11), bool))
RLES = [crop_to_coco(crop, HEIGHT, WIDTH) for crop in (SQUARE, BAR)]
POLYGON = [2, 1, 6, 1, 6, 5, 2, 5]
BOXES = {1: [2, 1, 4, 4], 2: [0, 6, 11, 2], 3: [2, 1, 4, 4]}

HUGE, STAR = [1e9] * 6, [0, 0, 1e6, 1e6, 0, 1e6] * 50
WRONG = [
    *(None, True, -1, 0, 10**30, 2**31, 1.5, float("nan"), float("inf"), "", "x", "7", "a\nb\0"),
    *([], [[]], [1, 2], {}, {"a": 1}, HUGE, STAR, [1, 1, 2, 2], [1, 1, 2, 2, 3], [[1, 1], [2, 2], [3, 1]]),
    *([POLYGON, "x"], [-5, -5, 40, -5, 40, 40, -5, 40], [3, 3, 3, 3, 3, 3]),
    *({"size": [9, 12], "counts": counts} for counts in ([2**63, 2**63, 108], "\ud800", [1.5, 106.5])),
    {"size": [12, 9], "counts": [108]},
]


def annotation(number, image, category, segmentation):
    more = {"bbox": list(BOXES[number]), "area": 16, "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def content():
    return {
        "info": {"image_root": "."},
        "images": [
            {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "sub/b.png", "height": HEIGHT, "width": WIDTH, "cell_type": "x", "group": "g"},
        ],
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
        "annotations": [
            annotation(1, 1, 1, copy.deepcopy(RLES[0])),
            annotation(2, 2, 2, copy.deepcopy(RLES[1])),
            annotation(3, 1, 2, [list(POLYGON)]),
        ],
    }


def results():
    return [
        {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": copy.deepcopy(RLES[0])},
        {"image_id": 2, "category_id": 2, "score": 0.8, "segmentation": copy.deepcopy(RLES[1]), "bbox": [0, 6, 11, 2]},
        {"image_id": 1, "category_id": 2, "score": 0.1, "segmentation": copy.deepcopy(RLES[1])},
    ]


def places(value, path=()):
    """All paths into a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(make):
    """Texts of JSON in which one to three values are replaced, removed or doubled, or which are cut; and the value."""

    @st.composite
    def build(draw):
        value = make()
        for _ in range(draw(st.integers(0, 3))):
            *parents, key = draw(st.sampled_from([path for path in places(value) if path]))
            node = value
            for parent in parents:
                node = node[parent]
            change = draw(st.sampled_from(["replace", "replace", "remove", "double", "nest"]))
            if change == "replace":
                node[key] = copy.deepcopy(draw(st.sampled_from(WRONG)))
            elif change == "remove":
                del node[key]
            elif change == "double" and isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            elif change == "nest":
                node[key] = [node[key]]
        if draw(st.booleans()) and isinstance(value, dict) and isinstance(value.get("annotations"), list):
            value["annotations"] = dict(enumerate(value["annotations"]))  # as in some files of LIVECell
        text = json.dumps(value)
        end = draw(st.sampled_from([None] * 9 + ["cut"]))
        return (text[: draw(st.integers(0, len(text)))], None) if end else (text, value)

    return build()


@fuzz(1200, mutated(content))
def test_annotations(folder, case):
    text, value = case
    path = folder / "instances_train.json"
    path.write_text(text)
    log = FindingLog(clean=True)
    source = CocoSource(path)
    records = list(source.records(log))
    originals = {1: SQUARE, 2: BAR, 3: SQUARE}
    plain = content()["annotations"]
    for record in records:
        for cell in record.cells:
            x0, y0, x1, y1 = cell.crop.box
            assert 0 <= x0 < x1 <= record.width
            assert 0 <= y0 < y1 <= record.height
            same = isinstance(value, dict) and json.dumps(value["annotations"]) == json.dumps(plain)
            if same and (record.height, record.width) == (HEIGHT, WIDTH):
                expected = originals[cell.row].to_full(HEIGHT, WIDTH)
                assert np.array_equal(cell.crop.to_full(HEIGHT, WIDTH), expected)
    cells = sum(len(record.cells) for record in records)
    assert cells == source.rows or len(log) > 0, "nothing is left out without a word"
    if text == json.dumps(content()):  # to Python, True is 1
        assert cells == 3
    log = FindingLog()
    list(source.records(log))
    log.raise_open_errors(path)


@fuzz(700, mutated(content))
def test_ground_truth(folder, case):
    path = folder / "truth.json"
    path.write_text(case[0])
    truth = read_truth(path)
    for image in truth.images.values():
        for rle in image.masks:
            assert rle["size"] == [image.height, image.width]
            x0, y0, x1, y1 = coco_to_crop(rle).box
            assert 0 <= x0 <= x1 <= image.width
            assert 0 <= y0 <= y1 <= image.height


@fuzz(600, mutated(results))
def test_results(folder, case):
    (folder / "truth.json").write_text(json.dumps(content()))
    (folder / "results.json").write_text(case[0])
    truth = read_truth(folder / "truth.json")
    predictions = read_predictions(folder / "results.json", truth)
    for name, masks in predictions.masks.items():
        for rle in masks:
            assert rle["size"] == [truth.images[name].height, truth.images[name].width]
    if case[1] == results():
        assert [len(masks) for masks in predictions.masks.values()] == [1, 1]


@fuzz(200, st.tuples(mutated(content), mutated(results)))
def test_average_precision(folder, case):
    """What is read may be handed to COCO's evaluation, which is written in C++."""
    for name, (text, _) in zip(("truth.json", "results.json"), case, strict=True):
        (folder / name).write_text(text)
    truth = read_truth(folder / "truth.json")
    predictions = read_predictions(folder / "results.json", truth)
    scores = evaluate_coco(truth.coco, predictions.results)
    for values in scores.values():
        assert all(value != value or 0 <= value <= 100 for value in values.values())


def test_nesting_without_end(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    for read in (CocoSource, read_truth):
        with pytest.raises(CellSegError, match="nested too deeply"):
            read(path)
