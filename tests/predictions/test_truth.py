"""Reading truth and predictions in all their forms: the same cells must come out of each."""

import gzip
import json
import os

import numpy as np
import pytest
import tifffile
from pycocotools import mask as coco_mask

from cellseg_d2.cli import analyze_errors, evaluate, visualize
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco, crop_to_kaggle
from cellseg_d2.predictions.submission import write_submission
from cellseg_d2.predictions.truth import choose_images, read_ids, read_predictions, read_truth
from cellseg_d2.visualization.report.cells import gather_cells
from tests.competition_files import write_train_csv

HEIGHT, WIDTH = 20, 30
SQUARE, BAR = MaskCrop(2, 3, np.ones((6, 6), bool)), MaskCrop(4, 7, np.ones((2, 20), bool))
CELLS = {"a": [SQUARE, BAR], "b": [BAR], "c": []}
TYPES = {"a": "cort", "b": "astro", "c": "astro"}


def kaggle(crop):
    return crop_to_kaggle(crop, WIDTH)


def rle(crop):
    return crop_to_coco(crop, HEIGHT, WIDTH)


def pixels(rles):
    return [coco_mask.decode(rle).tolist() for rle in rles]


@pytest.fixture
def csv(tmp_path):
    return write_train_csv(tmp_path / "train.csv", CELLS, HEIGHT, WIDTH, TYPES)


def coco_dict():
    annotations = [
        {"id": 10 * i + j, "image_id": i, "category_id": 1 if TYPES[name] == "cort" else 2, "segmentation": rle(crop)}
        for i, (name, crops) in enumerate(CELLS.items())
        for j, crop in enumerate(crops)
    ]
    images = [
        {"id": i, "file_name": f"sub/{name}.png", "height": HEIGHT, "width": WIDTH} for i, name in enumerate(CELLS)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cort"}, {"id": 2, "name": "astro"}],
    }


@pytest.fixture
def coco(tmp_path):
    path = tmp_path / "instances_val.json"
    path.write_text(json.dumps(coco_dict()))
    return path


def results_file(tmp_path, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    return path


def detection(crop, score, image, **more):
    return {"image_id": image, "category_id": 1, "segmentation": rle(crop), "score": score, **more}


# --- truth -----------------------------------------------------------------------------------------------------------


def check_truth(truth):
    assert list(truth.images) == ["a", "b", "c"]
    for name, crops in CELLS.items():
        image = truth.images[name]
        assert (image.height, image.width) == (HEIGHT, WIDTH)
        assert pixels(image.masks) == [crop.to_full(HEIGHT, WIDTH).astype(int).tolist() for crop in crops]
    assert truth.warnings == []


def test_csv(csv):
    truth = read_truth(csv)
    check_truth(truth)
    assert truth.cell_types == {"a": "cort", "b": "astro"}, "c has no cells, hence no type"
    assert truth.coco is None


def test_gzipped_csv(csv, tmp_path):
    path = tmp_path / "train.csv.gz"
    path.write_bytes(gzip.compress(csv.read_bytes()))
    check_truth(read_truth(path))


def test_csv_with_other_types_or_none(csv):
    csv.write_text(csv.read_text().replace("cort", "HeLa").replace("astro", ""))
    truth = read_truth(csv)
    check_truth(truth)
    assert truth.cell_types == {"a": "HeLa"}


def test_coco(coco):
    truth = read_truth(coco)
    check_truth(truth)
    assert truth.cell_types == {"a": "cort", "b": "astro"}, "c has no cells, hence no type"
    assert truth.names == {0: "a", 1: "b", 2: "c"}


def test_coco_with_a_dict_polygons_and_uncompressed_counts(tmp_path):
    content = coco_dict()
    first, second, third = content["annotations"]
    first["segmentation"] = [[3, 2, 9, 2, 9, 8, 3, 8]]
    full = BAR.to_full(HEIGHT, WIDTH).T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], full, [0]]))).tolist()
    second["segmentation"] = {
        "size": [HEIGHT, WIDTH],
        "counts": np.diff([0, *edges, HEIGHT * WIDTH]).tolist(),
    }
    content["annotations"] = {str(a["id"]): a for a in (first, second, third)}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    check_truth(read_truth(path))


def test_crowd_regions_are_not_cells_and_said_to_be_there(tmp_path):
    content = coco_dict()
    content["annotations"][0]["iscrowd"] = 1
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    truth = read_truth(path)
    assert len(truth.images["a"].masks) == 1
    assert truth.warnings == ["regions marked iscrowd, in which no prediction is judged: 1"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,1 2 3,30,20,cort", "row 6, id x: malformed mask: it has 3 numbers"),
        ("x,1 b,30,20,cort", "row 6, id x: malformed mask: 'b' is not a whole number"),
        ("x,600 2,30,20,cort", "row 6, id x: outside the image"),
        ("x,1 -2,30,20,cort", "row 6, id x: non-positive length"),
        ("x,1 2,30.5,20,cort", "row 6, id x: malformed size"),
        ("a,1 2,20,30,cort", "row 6, id a: inconsistent size"),
        (",1 2,30,20,cort", "row 6, no id"),
    ],
)
def test_malformed_rows_are_named(csv, row, message):
    csv.write_text(csv.read_text() + row + "\n")
    with pytest.raises(CellSegError) as caught:
        read_truth(csv)
    assert str(csv) in str(caught.value)
    assert message in str(caught.value)


def damaged(**changes):
    content = coco_dict()
    content["annotations"][0].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "needs images, annotations and categories"),
        ({"images": [], "annotations": []}, "needs images, annotations and categories"),
        (
            {**coco_dict(), "images": [{"id": 0, "height": 2, "width": 2}]},
            r"image 0 \(from 0\) has the file_name None",
        ),
        (damaged(image_id=77), "annotation 0: there is no image 77"),
        (damaged(category_id=77), "annotation 0: there is no category 77"),
        (
            damaged(segmentation={"size": [HEIGHT, WIDTH], "counts": "o"}),
            "annotation 0 of image a: the mask is malformed",
        ),
        (damaged(segmentation={"size": [5, 6], "counts": "n0"}), r"for \[6, 5\] pixels, but the image has \[30, 20\]"),
        (damaged(segmentation=[]), "no segmentation"),
        (damaged(segmentation=[[1, 2, 3, 4]]), "at least three of them"),
        (damaged(segmentation=[[1, 2, 3, 4, 5, "x"]]), "the mask is malformed"),
        (damaged(segmentation=None), "the mask is malformed"),
    ],
)
def test_damaged_coco_truth(tmp_path, content, message):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CellSegError, match=message):
        read_truth(path)


def test_images_of_one_name_in_two_folders(tmp_path):
    content = coco_dict()
    content["images"][1]["file_name"] = "other/a.png"
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    truth = read_truth(path)
    assert list(truth.images) == ["sub/a", "other/a", "sub/c"]
    write_submission(tmp_path / "p.csv", {"other/a": [kaggle(SQUARE)]})
    assert areas(read_predictions(tmp_path / "p.csv", truth)) == {"other/a": [36]}
    content["images"][1]["file_name"] = "sub/a.tif"
    path.write_text(json.dumps(content))
    with pytest.raises(CellSegError, match="several images have the file name 'sub/a'"):
        read_truth(path)


def test_other_files(tmp_path):
    for name, message in (("masks.npz", "before any threshold"), ("masks.pdf", "no kind of annotations that is known")):
        (tmp_path / name).touch()
        with pytest.raises(CellSegError, match=message):
            read_truth(tmp_path / name)
    with pytest.raises(CellSegError, match="does not exist"):
        read_truth(tmp_path / "none.json")


# --- predictions -----------------------------------------------------------------------------------------------------


def areas(predictions):
    return {name: [int(coco_mask.area(mask)) for mask in masks] for name, masks in predictions.masks.items()}


@pytest.mark.parametrize("truth_file", ["csv", "coco"])
def test_submission_is_scored_as_it_stands(request, tmp_path, truth_file):
    truth = read_truth(request.getfixturevalue(truth_file))
    write_submission(tmp_path / "p.csv", {"a": [kaggle(SQUARE), kaggle(BAR)], "c": [], "z": ["1 1"]})
    predictions = read_predictions(tmp_path / "p.csv", truth)
    assert pixels(predictions.masks["a"]) == pixels([rle(SQUARE), rle(BAR)])
    assert areas(predictions) == {"a": [36, 40], "c": []}
    assert len(predictions.warnings) == 2
    assert predictions.warnings[0] == "predicted images that the ground truth lacks are left out: 1"
    assert "scored as it stands: image a: cells overlap (contested pixels: 4)" in predictions.warnings[1]


def test_submission_can_be_resolved(tmp_path, csv):
    write_submission(tmp_path / "p.csv", {"a": [kaggle(SQUARE), kaggle(BAR), kaggle(SQUARE)]})
    predictions = read_predictions(tmp_path / "p.csv", read_truth(csv), overlaps="resolve")
    assert areas(predictions) == {"a": [36, 36]}, "the earlier row keeps the pixels, a covered cell is gone"
    assert predictions.warnings == []


@pytest.mark.parametrize(("truth_file", "ids"), [("coco", (0, 1)), ("coco", ("a", "b")), ("csv", ("a", "b"))])
def test_coco_results(request, tmp_path, truth_file, ids):
    path = results_file(
        tmp_path,
        [
            detection(SQUARE, 0.6, ids[0]),
            detection(BAR, 0.9, ids[0]),
            detection(SQUARE, 0.4, ids[0]),
            detection(SQUARE, 0.2, ids[1]),
        ],
    )
    truth = read_truth(request.getfixturevalue(truth_file))
    predictions = read_predictions(path, truth)
    assert areas(predictions) == {"a": [32, 40], "b": []}, "the higher score keeps the pixels"
    assert len(predictions.results) == 4, "AP needs those below the threshold, too"
    if truth_file == "coco":
        assert [result["image_id"] for result in predictions.results] == [0, 0, 0, 1]
    assert areas(read_predictions(path, truth, 0.4, "keep")) == {"a": [36, 40, 36], "b": []}
    assert areas(read_predictions(path, truth, 0.95)) == {"a": [], "b": []}


def outlines(path, shifts):
    """A GeoJSON of one square a place ``(x, y)``, whose corners are pixels' edges."""
    path.parent.mkdir(exist_ok=True)
    squares = [[(x, y), (x + 6, y), (x + 6, y + 6), (x, y + 6), (x, y)] for x, y in shifts]
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in squares]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def test_a_truth_without_sizes_has_those_of_the_images(tmp_path, capsys):
    """A GeoJSON tells no size; predictions of other images are said to be left out, and never counted as nothing."""
    truth, predictions, images = tmp_path / "truth", tmp_path / "predictions", tmp_path / "elsewhere"
    images.mkdir()
    for name, height in (("a", 20), ("b", 40)):
        tifffile.imwrite(images / f"{name}.tif", np.zeros((height, 30), np.uint8))
        outlines(truth / f"{name}.geojson", [(2, 3), (12, height - 8)])
        outlines(predictions / f"{name}.geojson", [(2, 3)])
    outlines(predictions / "c.geojson", [(2, 3)])
    given = ["--predictions", str(predictions), "--ground-truth", str(truth)]
    for main in (evaluate.main, lambda words: analyze_errors.main([*words, "--output", str(tmp_path / "errors")])):
        with pytest.raises(CellSegError, match="give a width and a height that an image can have: --images names"):
            main(given)
        main([*given, "--images", str(images)])
        assert "predicted images that the ground truth lacks are left out: 1" in capsys.readouterr().err
    evaluate.main([*given, "--images", str(images), "--json", str(tmp_path / "s.json")])
    score = json.loads((tmp_path / "s.json").read_text())
    assert (score["tp50"], score["fp50"], score["fn50"]) == (2, 0, 2)
    assert read_truth(truth, {"a": (20, 30), "b": (40, 30)}).images["b"].height == 40
    report = gather_cells(predictions, truth, [images])
    assert {image.name: len(image.true) for image in report.images} == {"a": 2, "b": 2}
    visualize.main(
        ["dataset", "--images", str(images), "--ground-truth", str(truth), "--output", str(tmp_path / "pictures")]
    )
    assert {path.stem for path in (tmp_path / "pictures").glob("*.png")} >= {"a", "b"}
    for name in "ab":
        (predictions / f"{name}.geojson").unlink()
    with pytest.raises(CellSegError, match="not one of its images is in the ground truth"):
        evaluate.main([*given, "--images", str(images)])


def test_every_file_is_parsed_once(coco, tmp_path, monkeypatch):
    cells = {**coco_dict(), "annotations": [{**entry, "score": 0.5} for entry in coco_dict()["annotations"]]}
    files = coco, results_file(tmp_path, [detection(SQUARE, 0.6, 0)]), tmp_path / "cells.json"
    files[2].write_text(json.dumps(cells))
    for path in files:
        os.utime(path, (1e9, 1e9))
    parsed = []
    monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: parsed.append(text) or loads(text))
    truth = read_truth(files[0])
    for path in files[1:]:
        assert read_predictions(path, truth).masks["a"]
    assert parsed == [path.read_text() for path in files]


def test_results_of_a_truth_whose_ids_are_texts(tmp_path):
    content = coco_dict()
    for image, own in zip(content["images"], ("field-a", "field-b", "1"), strict=True):
        image["id"] = own
    for annotation in content["annotations"]:
        annotation["image_id"] = content["images"][annotation["image_id"]]["id"]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    truth = read_truth(tmp_path / "truth.json")
    check_truth(truth)
    results = [detection(SQUARE, 0.9, "field-a"), detection(BAR, 0.9, "b"), detection(BAR, 0.9, 1)]
    predictions = read_predictions(results_file(tmp_path, results), truth)
    assert areas(predictions) == {"a": [36], "b": [40], "c": [40]}
    assert [result["image_id"] for result in predictions.results] == [1, 2, 3], "as in the truth that is handed on"


def test_predictions_that_name_an_image_twice_are_refused(tmp_path, coco):
    content = coco_dict()
    for folder in ("p1", "p2"):
        (tmp_path / "found" / folder).mkdir(parents=True)
        (tmp_path / "found" / folder / "coco.json").write_text(json.dumps(content))
        content["annotations"] = []
    with pytest.raises(CellSegError, match="several images are called"):
        read_predictions(tmp_path / "found", read_truth(coco))


def test_nothing_predicted_at_all(tmp_path, csv):
    assert read_predictions(results_file(tmp_path, []), read_truth(csv)).masks == {}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"annotations": []}, "a list of detections"),
        ([{"image_id": 0}], "detection 0: it needs image_id"),
        ([detection(BAR, "high", 0)], "detection 0 has the score 'high'"),
        ([detection(BAR, 0.9, [0])], "detection 0: its image_id or its category_id"),
        ([detection(BAR, 0.9, 0, segmentation={"size": [3, 4], "counts": "<"})], "image a: the mask is malformed"),
        ([detection(BAR, 0.9, 99)], r"not one of its images is in the ground truth \(for example '99' and 'a'\)"),
    ],
)
def test_wrong_results(tmp_path, coco, results, message):
    with pytest.raises(CellSegError, match=message):
        read_predictions(results_file(tmp_path, results), read_truth(coco))


def test_wrong_submissions(tmp_path, csv):
    truth = read_truth(csv)
    write_submission(tmp_path / "p.csv", {"a": ["1 2", "3 x"]})
    with pytest.raises(CellSegError, match="image a, cell 2: 'predicted' is malformed: 'x'"):
        read_predictions(tmp_path / "p.csv", truth)
    write_submission(tmp_path / "p.csv", {"z": ["1 2"]})
    with pytest.raises(CellSegError, match="not one of its images"):
        read_predictions(tmp_path / "p.csv", truth)


# --- the choice of images --------------------------------------------------------------------------------------------


def test_choice_of_images(csv):
    truth = read_truth(csv)
    assert choose_images(truth, {"b"}) == ["a", "b", "c"]
    assert choose_images(truth, {"b"}, only_predicted=True) == ["b"]
    assert choose_images(truth, {"b"}, ids=["c", "a"]) == ["a", "c"]
    assert choose_images(truth, {"b"}, exclude=["a"]) == ["b", "c"]
    with pytest.raises(CellSegError, match="lacks: 1, such as q"):
        choose_images(truth, {"b"}, exclude=["q", "a"])
    with pytest.raises(CellSegError, match="no image is left"):
        choose_images(truth, {"b"}, ids=["a"], only_predicted=True)


@pytest.mark.parametrize(
    "content", ["a\nb\n\na\n", "id,predicted\na,\nb,1 2\nb,3 4\n", '\ufeff"id","n"\n"a",1\n"b",2\n']
)
def test_lists_of_ids(tmp_path, content):
    (tmp_path / "ids.txt").write_text(content, encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt") == ["a", "b"]
    with pytest.raises(CellSegError, match="cannot be read as a list of image ids"):
        read_ids(tmp_path / "none.txt")
