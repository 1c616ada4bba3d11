"""The evaluator on predictions whose score is known in advance."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from cellseg_d2.cli import evaluate
from cellseg_d2.config import load_config
from cellseg_d2.data.catalog import register_folder
from cellseg_d2.data.categories import in_classes
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.datasets.coco_reader import CocoSource
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.detections.instances import to_detections
from cellseg_d2.detections.saved import load_detections
from cellseg_d2.evaluation.coco_protocol import COCOProtocolEvaluator
from cellseg_d2.evaluation.competition import CompetitionEvaluator
from cellseg_d2.masks.crop import coco_to_crop
from cellseg_d2.modeling.anchors import read_boxes
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.tuning_image import make_trials
from cellseg_d2.predictions.truth import read_predictions, read_truth
from cellseg_d2.visualization.report.cells import gather_cells
from tests.discs import change_first_cell, write_disc_dataset


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    register_folder(write_disc_dataset(tmp_path_factory.mktemp("scored"), name="scored"))
    return DatasetCatalog.get("scored_val")


def perfect(entry, drop=0, score=0.9):
    """Stock Detectron2 outputs that repeat the truth, but for the last ``drop`` cells."""
    annotations = entry["annotations"][: len(entry["annotations"]) - drop]
    shape = entry["height"], entry["width"]
    masks = np.zeros((len(annotations), *shape), bool)
    for mask, annotation in zip(masks, annotations, strict=True):
        mask[:] = coco_to_crop(annotation["segmentation"]).to_full(*shape)
    boxes = [coco_to_crop(a["segmentation"]).box for a in annotations]
    return {
        "instances": Instances(
            shape,
            pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
            scores=torch.full((len(annotations),), score),
            pred_classes=torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64),
            pred_masks=torch.from_numpy(masks),
        )
    }


def run(evaluator, entries, outputs):
    evaluator.reset()
    for entry, output in zip(entries, outputs, strict=True):
        evaluator.process([{"image_id": entry["image_id"]}], [output])
    return evaluator.evaluate()


def test_the_truth_scores_one(entries, tmp_path):
    evaluator = CompetitionEvaluator("scored_val", PostprocessParams(), tmp_path)
    result = run(evaluator, entries, [perfect(entry) for entry in entries])["competition"]
    assert result["mean"] == 1.0
    assert result["bright"] == result["dark"] == 1.0
    with open(tmp_path / "submission.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 5 + 1
    assert [row["predicted"] for row in rows if row["id"] == "val3"] == [""]


def test_missing_cells_cost_their_share(entries):
    # 4 of 5 found in image 0, all in images 1 and 2, and an image without cells that stays empty: (4/5 + 1 + 1 + 1) / 4
    outputs = [perfect(entry, drop=1 if i == 0 else 0) for i, entry in enumerate(entries)]
    result = run(CompetitionEvaluator("scored_val", PostprocessParams()), entries, outputs)["competition"]
    assert result["mean"] == pytest.approx(0.95)


def test_the_threshold_on_scores_counts(entries):
    params = PostprocessParams(score_thresholds=(0.95,))
    result = run(CompetitionEvaluator("scored_val", params), entries, [perfect(entry) for entry in entries])
    assert result["competition"]["mean"] == pytest.approx(0.25), "only the empty image is right"


@pytest.mark.parametrize("protocol", ["coco", "livecell"])
def test_average_precision_of_the_truth_is_full(entries, protocol, tmp_path):
    evaluator = COCOProtocolEvaluator("scored_val", protocol, tmp_path)
    result = run(evaluator, entries, [perfect(entry) for entry in entries])
    prefix = "" if protocol == "coco" else "livecell_"
    assert result[f"{prefix}segm"]["AP"] == pytest.approx(100)
    assert result[f"{prefix}bbox"]["AP"] == pytest.approx(100)
    worse = run(evaluator, entries, [perfect(entry, drop=2 if i == 0 else 0) for i, entry in enumerate(entries)])
    # 13 of 15 cells, in one class 8 of 10: 81 of its 101 levels of recall are reached; the other class is whole.
    assert worse[f"{prefix}segm"]["AP"] == pytest.approx((100 * 81 / 101 + 100) / 2)


def test_detections_are_kept_with_the_model_s_own_classes(entries, tmp_path):
    evaluator = CompetitionEvaluator("scored_val", PostprocessParams(), tmp_path, True, ["cell", "debris"])
    run(evaluator, entries, [perfect(entry) for entry in entries])
    assert load_detections(tmp_path / "detections.npz").class_names == ["cell", "debris"]


def test_regions_marked_iscrowd_are_cells_to_no_reader_of_the_truth(tmp_path, capsys, repository):
    """What predicts the five discs of an image, one of them in a region to ignore, has 4 hits, whoever counts."""
    folder = write_disc_dataset(tmp_path, images=2, name="crowded")
    json_file = folder / "instances_val.json"
    register_folder(folder)
    entries = DatasetCatalog.get("crowded_val")
    outputs = [perfect(entry) for entry in entries]
    content = json.loads(json_file.read_text())
    content["annotations"][0]["iscrowd"] = 1
    json_file.write_text(json.dumps(content))
    crowded = DatasetCatalog.get("crowded_val")
    assert [len(entry["annotations"]) for entry in crowded] == [4, 0]
    trained = run(CompetitionEvaluator("crowded_val", PostprocessParams(), tmp_path / "out"), crowded, outputs)
    trained = trained["competition"]
    assert (trained["tp50"], trained["fp50"], trained["fn50"]) == (4, 0, 0)
    assert trained["mean"] == 1
    # The same detections, saved, where settings of the post-processing are compared.
    names = [Path(entry["file_name"]).stem for entry in entries]
    raw = {name: to_detections(own["instances"]) for name, own in zip(names, outputs, strict=True)}
    trials = make_trials(raw, read_truth(json_file), raw)
    assert [trial.score(PostprocessParams()) for trial in trials.values()] == [1, 1]

    given = ["--predictions", str(tmp_path / "out/submission.csv"), "--ground-truth", str(json_file)]
    evaluate.main([*given, "--json", str(tmp_path / "score.json")])
    assert "in which no prediction is judged: 1" in capsys.readouterr().err
    assert json.loads((tmp_path / "score.json").read_text())["mean"] == trained["mean"]
    report = gather_cells(tmp_path / "out/submission.csv", json_file)
    assert report.errors.score.mean == trained["mean"]
    assert sum(image.true_count for image in report.images) == 4
    assert sum(len(record.cells) for record in CocoSource(json_file).records(FindingLog())) == 4
    assert len(read_boxes(json_file).boxes) == 4
    view = in_classes("crowded_val", [["*", "cell"]], ["cell"])
    assert sum(len(entry["annotations"]) for entry in DatasetCatalog.get(view)) == 4
    mapper = CellDatasetMapper(load_config(repository / "configs/quickstart/instant_test.yaml"), is_train=False)
    assert len(mapper.load(entries[0]).masks) == 5
    marked = {**entries[0], "annotations": content["annotations"][:5], "file_name": entries[0]["file_name"]}
    assert len(mapper._load(marked).masks) == 4
    assert mapper._load(crowded[0]).ignore.sum() == content["annotations"][0]["area"]


def test_types_in_one_image_are_scored_apart(tmp_path):
    """One cell of each image becomes dark: with the vote it is bright again, without it every cell has its type."""
    folder = write_disc_dataset(tmp_path, images=2, name="typed")
    change_first_cell(folder, "val", category_id=2)
    register_folder(folder)
    entries = DatasetCatalog.get("typed_val")
    outputs = [perfect(entry) for entry in entries]
    found = {}
    for vote in (True, False):
        evaluator = CompetitionEvaluator("typed_val", PostprocessParams(vote=vote))
        found[vote] = run(evaluator, entries, outputs)["competition"]
        assert found[vote]["mean"] == 1, "cells are compared whatever their type"
    assert (found[False]["bright"], found[False]["dark"]) == (1, 1)
    assert (found[True]["bright"], found[True]["dark"]) == (pytest.approx(4 / 5), 0)


def test_images_of_one_name_in_two_folders_are_both_scored(tmp_path):
    """One is predicted rightly, the other not at all."""
    folder = write_disc_dataset(tmp_path, images=3, name="wells")
    path = folder / "instances_val.json"
    content = json.loads(path.read_text())
    for well, entry in zip(("A1", "B1"), content["images"], strict=False):
        (folder / "images" / well).mkdir()
        (folder / "images" / entry["file_name"]).rename(folder / "images" / well / "day1.png")
        entry["file_name"] = f"{well}/day1.png"
    path.write_text(json.dumps(content))
    register_folder(folder)
    entries = DatasetCatalog.get("wells_val")
    outputs = [perfect(entry, drop=5 * (entry["image_id"] == 2)) for entry in entries]
    evaluator = CompetitionEvaluator("wells_val", PostprocessParams(), tmp_path / "out", save_detections=True)
    found = run(evaluator, entries, outputs)["competition"]
    assert found["mean"] == pytest.approx(2 / 3), "one of the three images has its cells missed"
    names = ["A1/day1", "B1/day1", "val2"]
    assert sorted(load_detections(tmp_path / "out/detections.npz").images) == names
    truth = read_truth(path)
    assert sorted(truth.images) == names, "all readers of the dataset call them the same"
    predicted = read_predictions(tmp_path / "out/submission.csv", truth).masks
    assert [len(predicted.get(name, [])) for name in names] == [5, 0, 0]


def test_types_in_one_image_are_compared_as_the_model_calls_them(tmp_path):
    folder = write_disc_dataset(tmp_path, images=2, name="renamed")
    change_first_cell(folder, "val", category_id=2)
    register_folder(folder)
    entries = DatasetCatalog.get("renamed_val")
    outputs = [perfect(entry) for entry in entries]
    for classes, category_map in ((["round", "dark"], [["bright", "round"]]), (["disc"] * 2, [["*", "disc"]])):
        params = PostprocessParams(vote=False)
        evaluator = CompetitionEvaluator("renamed_val", params, class_names=classes, category_map=category_map)
        found = run(evaluator, entries, outputs)["competition"]
        assert {name: found[name] for name in classes} == dict.fromkeys(classes, 1.0)
        assert "bright" not in found
