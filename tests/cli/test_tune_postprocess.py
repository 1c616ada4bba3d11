"""From saved detections to a piece of a configuration that infer takes, through the tools as a user calls them."""

import json
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from cellseg_d2.cli import infer, tune_postprocess
from cellseg_d2.config import load_config
from cellseg_d2.data.catalog import register_folder
from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.saved import load_detections, save_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.evaluation.competition import CompetitionEvaluator
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess.params import PostprocessParams
from tests.competition_files import write_train_csv
from tests.conftest import sentences
from tests.discs import CLASSES, disc_image, write_disc_dataset, write_untrained_run
from tests.quick_python import quick_python

HEIGHT, WIDTH = 60, 80


def square(index):
    return MaskCrop(10 * (index // 8), 10 * (index % 8), np.ones((6, 6), bool))


@pytest.fixture
def scene(tmp_path):
    """Two types whose detections are right above 0.7 and 0.3; a train.csv; detections in two files."""
    generator = np.random.default_rng(0)
    images, true, types = {}, {}, {}
    for i in range(12):
        border = (0.7, 0.3)[i % 2]
        scores = generator.uniform(0.02, 0.98, 30).astype(np.float32)
        scores = scores[np.abs(scores - border) > 0.04]
        crops = [square(j) for j in range(len(scores))]
        boxes = np.array([crop.box for crop in crops], np.float32)
        images[f"image{i}"] = Detections(HEIGHT, WIDTH, boxes, scores, np.full(len(scores), i % 2), crops)
        true[f"image{i}"] = [crop for crop, score in zip(crops, scores, strict=True) if score > border]
        types[f"image{i}"] = ("astro", "cort")[i % 2]
    write_train_csv(tmp_path / "train.csv", true, HEIGHT, WIDTH, types)
    names = list(images)
    save_detections(tmp_path / "a.npz", {name: images[name] for name in names[:5]}, ["astro", "cort"])
    save_detections(tmp_path / "b.npz", {name: images[name] for name in names[5:]}, ["astro", "cort"])
    return tmp_path


def arguments(scene, *more):
    files = ["--detections", scene / "a.npz", scene / "b.npz", "--ground-truth", scene / "train.csv"]
    return [str(value) for value in (*files, "--output", scene / "out" / "postprocess.yaml", *more)]


def test_tuning_writes_what_scores_better_elsewhere_too(scene, capsys):
    tune_postprocess.main(arguments(scene, "--folds", 3))
    tuned = PostprocessParams.from_yaml(scene / "out/postprocess.yaml")
    assert tuned.score_thresholds == pytest.approx((0.7, 0.3), abs=0.051)
    printed = capsys.readouterr().out
    assert "12 images" in printed
    assert "the built-in defaults" in printed
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.startswith(("astro", "cort", "all"))}
    assert set(rows) == {"astro", "cort", "all"}
    assert rows["all"][1] == "12"
    assert rows["all"][3:5] == ["1.0000", "1.0000"]
    assert float(rows["all"][5]) == pytest.approx(1 - float(rows["all"][2]), abs=1e-3)
    assert float(rows["all"][5]) > 0.1
    text = (scene / "out/postprocess.yaml").read_text()
    assert "1.0000 held out (3 folds)" in text
    assert "Classes: astro, cort" in text
    assert [path.name for path in (scene / "out").iterdir()] == ["postprocess.yaml"]
    (scene / "child.yaml").write_text("_BASE_: out/postprocess.yaml\nTEST:\n  POSTPROCESS:\n    NMS_IOU: 0.25\n")
    assert PostprocessParams.from_config(load_config(scene / "child.yaml")) == replace(tuned, nms_iou=0.25)


def test_it_starts_from_what_evaluation_left_beside_the_detections(scene, capsys):
    PostprocessParams(score_thresholds=(0.7, 0.3)).to_yaml(scene / "postprocess.yaml")
    tune_postprocess.main(arguments(scene, "--folds", 2, "--trials", 100))
    printed = capsys.readouterr().out
    assert f"starting from {scene}/postprocess.yaml" in printed
    assert "the held-out gain is not above 0" in printed
    assert PostprocessParams.from_yaml(scene / "out/postprocess.yaml").score_thresholds == (0.7, 0.3)
    PostprocessParams(score_thresholds=(0.1,)).to_yaml(scene / "low.yaml")
    tune_postprocess.main(
        arguments(scene, "--folds", 2, "--start", scene / "low.yaml", "--exclude", "image0", "image3")
    )
    printed = capsys.readouterr().out
    assert "10 images" in printed
    assert "low.yaml" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--folds", "13"], "too few for 13 folds"),
        (["--folds", "1"], "at least 2 folds"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--exclude", "nobody"], "nobody"),
        (["--start", "three.yaml"], "score_thresholds has 3 values"),
        (["--start", "none.yaml"], "none.yaml cannot be read"),
        (["--ground-truth", "small.csv"], "are they of the same images?"),
        (["--ground-truth", "other.csv"], "no image is left"),
        (["--detections", "a.npz", "a.npz"], "each may be given once"),
        (["--detections", "train.csv"], "train.csv is not a detections.npz"),
    ],
)
def test_mistakes_are_one_sentence(scene, monkeypatch, more, message):
    PostprocessParams(score_thresholds=(0.1, 0.2, 0.3)).to_yaml(scene / "three.yaml")
    head = "id,annotation,width,height,cell_type\n"
    (scene / "small.csv").write_text(f"{head}image0,1 3,9,9,cort\nimage1,1 3,9,9,cort\n")
    (scene / "other.csv").write_text(f"{head}another,1 3,{WIDTH},{HEIGHT},cort\n")
    monkeypatch.chdir(scene)
    with pytest.raises(CellSegError) as caught:
        tune_postprocess.main([*arguments(scene), *more])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (scene / "out").exists()


def test_a_mistake_ends_the_tool_with_2(repository, scene):
    command = [*quick_python(), str(repository / "tools/tune_postprocess.py"), *arguments(scene), "--folds", "13"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=scene)
    assert result.returncode == 2
    (sentence,) = sentences(result.stderr)
    assert sentence.startswith("error: 12 images")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, repository):
    """What a training run leaves, with random weights."""
    folder = tmp_path_factory.mktemp("run")
    write_untrained_run(folder, repository / "configs/quickstart/instant_test.yaml")
    cv2.imwrite(str(folder / "a.png"), disc_image(np.random.default_rng(5), 96, 4, 0)[0])
    return folder


@pytest.fixture
def predict(run_folder, tmp_path, capsys):
    def call(*more):
        files = ["--config-file", run_folder / "config.yaml", "--input", run_folder / "a.png", "--output", tmp_path]
        infer.main([str(value) for value in (*files, "--device", "cpu", "--save", "submission", *more)])
        rows = (tmp_path / "submission.csv").read_text().splitlines()[1:]
        return [row for row in rows if not row.endswith(",")], capsys.readouterr().out

    return call


def test_infer_reads_the_file_beside_the_configuration_and_obeys_the_command_line(run_folder, predict, tmp_path):
    found, said = predict()
    assert found
    assert "post-processing of the configuration\n" in said
    same = PostprocessParams(score_thresholds=(0.1,), min_areas=(30,))  # the configuration's
    replace(same, score_thresholds=(1.0, 1.0)).to_yaml(run_folder / "postprocess.yaml")
    try:
        rows, said = predict()
        assert rows == []
        assert f"post-processing of {run_folder}/postprocess.yaml\n" in said
        rows, said = predict("--score-threshold", 0.1)
        assert rows == found
        assert "postprocess.yaml with score_thresholds of the command line" in said
        rows, said = predict("TEST.POSTPROCESS.SCORE_THRESHOLDS", "[0.1]")
        assert rows == found
        assert "with score_thresholds of the command line" in said
        rows, said = predict("--postprocess", run_folder / "config.yaml")
        assert rows == found
        assert f"post-processing of {run_folder}/config.yaml\n" in said
        same.to_yaml(tmp_path / "low.yaml")
        assert predict("--postprocess", tmp_path / "low.yaml")[0] == found
        (tmp_path / "partly.yaml").write_text("TEST:\n  POSTPROCESS:\n    SCORE_THRESHOLDS: [0.1]\n")
        assert predict("--postprocess", tmp_path / "partly.yaml")[0] == found
        assert predict("--postprocess", tmp_path / "partly.yaml", "--score-threshold", 1.0)[0] == []
    finally:
        (run_folder / "postprocess.yaml").unlink()


def test_evaluation_saves_what_it_detected(run_folder, repository, tmp_path):
    """What the evaluator saves scores, post-processed, what it reported; tuning starts from there."""
    register_folder(write_disc_dataset(tmp_path, name="saved"))
    entries = DatasetCatalog.get("saved_val")
    cfg = load_config(run_folder / "config.yaml", ["MODEL.DEVICE", "cpu", "TEST.SAVE_DETECTIONS", "True"])
    cfg.TEST.POSTPROCESS.MIN_AREAS = [12]
    from cellseg_d2.detections.instances import UnpastedMasks
    from cellseg_d2.evaluation.build import build_evaluator
    from cellseg_d2.weights.weights import load_trained

    model = build_model(cfg)
    load_trained(model, run_folder / "model_best.pth")
    model = UnpastedMasks(model).eval()
    evaluator = build_evaluator("competition", cfg, "saved_val", tmp_path / "out")
    assert isinstance(evaluator, CompetitionEvaluator)
    evaluator.reset()
    for entry in entries:
        image = torch.from_numpy(cv2.imread(entry["file_name"], cv2.IMREAD_GRAYSCALE)[None])
        inputs = [{"image": image, "height": 96, "width": 96, "image_id": entry["image_id"]}]
        with torch.no_grad():
            evaluator.process(inputs, model(inputs))
    reported = evaluator.evaluate()["competition"]["mean"]
    raw = load_detections(tmp_path / "out/detections.npz")
    assert list(raw.images) == [f"val{i}" for i in range(len(entries))]
    assert raw.class_names == list(CLASSES)
    assert all(found.masks.shape[1:] == (28, 28) and len(found) for found in raw.images.values())
    used = PostprocessParams.from_yaml(tmp_path / "out/postprocess.yaml")
    assert used == PostprocessParams(score_thresholds=(0.1,), min_areas=(12,))

    from cellseg_d2.postprocess.tuning_image import make_trials
    from cellseg_d2.predictions.truth import read_truth

    trials = make_trials(raw.images, read_truth(tmp_path / "saved/instances_val.json"), raw.images)
    assert np.mean([image.score(used) for image in trials.values()]) == pytest.approx(reported, abs=0.01)
    per_image = json.loads((tmp_path / "out/competition.json").read_text())["per_image"]
    assert set(per_image) == set(raw.images)
