"""Predictions become a data set that can be trained on, without images that are held out."""

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from cellseg_d2.cli import pseudo_label
from cellseg_d2.config import load_config
from cellseg_d2.data.catalog import register_folder
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.detections.saved import save_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.predictions.files import read_detections
from tests.competition_files import write_predicted
from tests.detections.soft_discs import detections_of
from tests.discs import CLASSES, disc_image, write_disc_dataset

SIZE = 96


@pytest.fixture
def annotated(tmp_path):
    """A converted data set, whose categories and validation images count."""
    return write_disc_dataset(tmp_path / "datasets")


@pytest.fixture
def unlabelled(tmp_path):
    """Three new images, and the discs in each."""
    folder, rng = tmp_path / "new", np.random.default_rng(11)
    folder.mkdir()
    crops = {}
    for name, count in (("many-bright", 4), ("few-dark", 2), ("none-dark", 0)):
        image, crops[name] = disc_image(rng, SIZE, count, 0)
        cv2.imwrite(str(folder / f"{name}.png"), image)
    return folder, crops


def run(annotated, images, tmp_path, *options):
    arguments = [
        "--images",
        images,
        "--like",
        annotated / "instances_train.json",
        "--output",
        tmp_path / "datasets/more",
    ]
    return pseudo_label.main([str(argument) for argument in [*arguments, *options]])


def results_of(crops, scores, category=1):
    """COCO results: the cells of each image get the scores in turn."""
    return [
        {"image_id": name, "category_id": category, "score": score, "segmentation": crop_to_coco(crop, SIZE, SIZE)}
        for name, own in crops.items()
        for crop, score in zip(own, scores, strict=False)
    ]


def test_a_submission_becomes_a_dataset(annotated, unlabelled, tmp_path, capsys):
    folder, crops = unlabelled
    write_predicted(tmp_path / "submission.csv", crops, SIZE)
    held_out = annotated / "instances_val.json"
    options = ["--predictions", tmp_path / "submission.csv", "--category-from-name", "--held-out", held_out]
    assert run(annotated, folder, tmp_path, *options) == 0
    assert "1 images (too few cells)" in capsys.readouterr().out

    records = load_coco(tmp_path / "datasets/more/instances_train.json")
    assert {record.id: record.cell_type for record in records} == {"many-bright": "bright", "few-dark": "dark"}
    for record in records:
        assert [cell.crop.box for cell in record.cells] == [crop.box for crop in crops[record.id]]
        assert all(np.array_equal(a.crop.mask, b.mask) for a, b in zip(record.cells, crops[record.id], strict=True))
    content = json.loads((tmp_path / "datasets/more/instances_train.json").read_text())
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "bright"), (2, "dark")]
    assert not any("score" in annotation for annotation in content["annotations"]), "a submission tells no scores"

    audit = json.loads((tmp_path / "datasets/more/audit.json").read_text())
    assert (audit["images"], audit["cells"]) == (2, 6)
    assert audit["per_type"]["bright"]["cells"] == 4
    assert audit["images_left_out"] == ["none-dark"]
    assert audit["held_out"] == [str(held_out)]


def test_detectron2_reads_it_beside_the_annotated_images(annotated, unlabelled, tmp_path):
    folder, crops = unlabelled
    (tmp_path / "results.json").write_text(json.dumps(results_of(crops, [0.9, 0.8, 0.7, 0.6])))
    assert run(annotated, folder, tmp_path, "--predictions", tmp_path / "results.json") == 0
    names = register_folder(tmp_path / "datasets/more") + register_folder(annotated)
    assert "more_train" in names
    entries = DatasetCatalog.get("more_train")
    assert all(cv2.imread(entry["file_name"]) is not None for entry in entries)
    assert sum(len(entry["annotations"]) for entry in entries) == 6
    DatasetCatalog.get("discs_train")
    assert MetadataCatalog.get("more_train").thing_classes == MetadataCatalog.get("discs_train").thing_classes


def test_thresholds_decide_and_scores_are_kept(annotated, unlabelled, tmp_path):
    folder, crops = unlabelled
    (tmp_path / "results.json").write_text(json.dumps(results_of(crops, [0.9, 0.8, 0.7, 0.4], category=2)))
    options = ["--predictions", tmp_path / "results.json", "--score-threshold", 0.99, 0.75, "--min-cells", 2]
    assert run(annotated, folder, tmp_path, *options) == 0
    content = json.loads((tmp_path / "datasets/more/instances_train.json").read_text())
    assert sorted(a["score"] for a in content["annotations"]) == pytest.approx([0.8, 0.8, 0.9, 0.9])
    assert {a["category_id"] for a in content["annotations"]} == {2}
    audit = json.loads((tmp_path / "datasets/more/audit.json").read_text())
    assert audit["detections_left_out"] == 2
    assert audit["per_type"]["dark"]["median_score"] == pytest.approx(0.85)


def test_saved_detections_and_numbered_results_are_read(annotated, unlabelled, tmp_path):
    folder, crops = unlabelled
    soft = detections_of([(30, 30, 8), (60, 60, 10)], [0.9, 0.8], SIZE, SIZE, [1, 1])
    save_detections(tmp_path / "detections.npz", {"few-dark": soft}, ["bright", "dark"])
    assert run(annotated, folder, tmp_path, "--predictions", tmp_path / "detections.npz") == 0
    (record,) = load_coco(tmp_path / "datasets/more/instances_train.json")
    assert (record.id, record.cell_type, len(record.cells)) == ("few-dark", "dark", 2)
    assert record.cells[0].crop.area == pytest.approx(np.pi * 64, rel=0.05)

    numbers = {"few-dark": 5, "many-bright": 6}
    images = [{"id": i, "file_name": f"{name}.png", "height": SIZE, "width": SIZE} for name, i in numbers.items()]
    (tmp_path / "images.json").write_text(json.dumps({"images": images}))
    numbered = [result | {"image_id": numbers[result["image_id"]]} for result in results_of(crops, [0.9, 0.8])]
    (tmp_path / "results.json").write_text(json.dumps(numbered))
    with pytest.raises(CellSegError, match=r"predicts none of the images.*--results-for"):
        run(annotated, folder, tmp_path, "--predictions", tmp_path / "results.json")
    options = ["--predictions", tmp_path / "results.json", "--results-for", tmp_path / "images.json"]
    assert run(annotated, folder, tmp_path, *options) == 0
    assert len(load_coco(tmp_path / "datasets/more/instances_train.json")) == 2


def test_the_categories_of_a_coco_json_are_those_of_its_names(annotated, unlabelled, tmp_path):
    folder, crops = unlabelled
    images = [{"id": i, "file_name": f"{name}.png", "height": SIZE, "width": SIZE} for i, name in enumerate(crops, 1)]
    ids = {image["file_name"]: image["id"] for image in images}
    annotations = [
        {**result, "id": i, "image_id": ids[f"{result['image_id']}.png"], "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}
        for i, result in enumerate(results_of(crops, [0.9, 0.8]), start=1)
    ]

    def predicted(*names):
        categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "predicted.json").write_text(json.dumps(content))
        return run(annotated, folder, tmp_path, "--predictions", tmp_path / "predicted.json")

    with pytest.raises(CellSegError, match=r"'cell' is predicted, which .* does not have"):
        predicted("cell")
    assert predicted(*reversed(CLASSES)) == 0
    records = load_coco(tmp_path / "datasets/more/instances_train.json")
    assert {cell.cell_type for record in records for cell in record.cells} == {CLASSES[-1]}


def test_held_out_images_are_refused_unless_told(annotated, unlabelled, tmp_path, capsys):
    folder, crops = unlabelled
    picture = annotated / "images/val0.png"
    (folder / "renamed.png").write_bytes(picture.read_bytes())
    crops["renamed"] = crops["few-dark"]
    write_predicted(tmp_path / "submission.csv", crops, SIZE)
    options = ["--predictions", tmp_path / "submission.csv", "--category", "dark"]
    options += ["--held-out", annotated / "instances_train.json", annotated / "instances_val.json"]
    with pytest.raises(CellSegError, match=r"1 of 4 images are held out, such as .*renamed\.png .*val0 \(the same pix"):
        run(annotated, folder, tmp_path, *options)
    assert not (tmp_path / "datasets/more").exists()
    assert run(annotated, folder, tmp_path, *options, "--leaks", "skip") == 0
    assert {r.id for r in load_coco(tmp_path / "datasets/more/instances_train.json")} == {"many-bright", "few-dark"}
    assert run(annotated, folder, tmp_path, *options, "--leaks", "allow") == 0
    assert len(load_coco(tmp_path / "datasets/more/instances_train.json")) == 3
    assert "LABELLED ALL THE SAME: 1" in capsys.readouterr().out
    with pytest.raises(CellSegError, match="all images are held out"):
        run(annotated, folder / "renamed.png", tmp_path, *options, "--leaks", "skip")


def test_a_model_labels_images_and_goes_on_after_a_bad_file(annotated, unlabelled, tmp_path, repository, capsys):
    folder, _ = unlabelled
    (folder / "broken.png").write_bytes(b"\x89PNG not really")
    cfg = load_config(repository / "configs/quickstart/instant_test.yaml", ["MODEL.DEVICE", "cpu"])
    cfg.MODEL.CLASS_NAMES = list(CLASSES)
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model_best.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    (tmp_path / "postprocess.yaml").write_text("score_thresholds: [0.1]\n")
    options = ["--config-file", tmp_path / "config.yaml", "--device", "cpu", "--tta"]
    options += ["--score-threshold", 0.01, "--category", "dark"]
    assert run(annotated, folder, tmp_path, *options) == 1
    records = load_coco(tmp_path / "datasets/more/instances_train.json")
    assert {record.id for record in records} == {"many-bright", "few-dark", "none-dark"}
    assert {cell.cell_type for record in records for cell in record.cells} == {"dark"}
    for record in records:
        assert sum(cell.crop.to_full(SIZE, SIZE).astype(int) for cell in record.cells).max() == 1
    output = capsys.readouterr()
    assert "postprocess.yaml with score_thresholds of the command line" in output.out
    assert "broken.png" in output.out + output.err


def test_mistakes_are_one_sentence_and_leave_nothing(annotated, unlabelled, tmp_path):
    folder, crops = unlabelled
    write_predicted(tmp_path / "submission.csv", crops, SIZE)
    submission = ["--predictions", tmp_path / "submission.csv"]
    for options, message in [
        (submission, "a submission does not say what the cells are"),
        ([*submission, "--category", "grey"], "no category 'grey', only bright, dark"),
        ([*submission, "--category", "dark", "--min-cells", 99], "none of 3 images has enough cells"),
        (["--predictions", tmp_path / "none.csv", "--category", "dark"], "none.csv"),
        (["--predictions", folder / "few-dark.png", "--category", "dark"], "neither a submission"),
        ([*submission, "--category", "dark", "--score-threshold", 0.1, 0.2, 0.3], "3 values"),
    ]:
        with pytest.raises(CellSegError, match=message):
            run(annotated, folder, tmp_path, *options)
    (folder / "a.png").write_bytes((folder / "few-dark.png").read_bytes())
    with pytest.raises(CellSegError, match=r"a\.png contains none of the categories bright, dark"):
        run(annotated, folder, tmp_path, *submission, "--category-from-name")
    assert not (tmp_path / "datasets/more").exists()
    for wrong in ([], [*submission, "--config-file", "x.yaml"], [*submission, "--tta"]):
        with pytest.raises(SystemExit):
            run(annotated, folder, tmp_path, *wrong)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"category_id": 1}, "it needs image_id, category_id, segmentation and score"),
        ({"category_id": 1.5, "segmentation": {}}, "its category_id is of a wrong kind"),
        ({"category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]}, "image a: no category 3"),
        ({"image_id": "a", "category_id": 1, "score": 0.5, "segmentation": {"size": [9, 9], "counts": "x"}}, "mask is"),
        (
            {"image_id": "a", "category_id": 1, "score": 0.5, "segmentation": {"size": [96, 96], "counts": "x"}},
            "mask is",
        ),
    ],
)
def test_malformed_results_are_named(result, message, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": "a", "score": 0.5, **result}]))
    with pytest.raises(CellSegError, match=f"(detection 0|results.json).*{message}"):
        read_detections(path, {"a": (SIZE, SIZE)}, CLASSES)
