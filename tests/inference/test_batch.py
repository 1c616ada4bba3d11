"""From a trained checkpoint to a submission, through the tool as a user calls it."""

import csv
import subprocess

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.modeling import build_model

from cellseg_d2.config import load_config
from cellseg_d2.detections.saved import load_many
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import postprocess
from cellseg_d2.predictions.submission import read_submission, validate_submission
from cellseg_d2.weights.weights import find_weights, load_trained
from tests.discs import disc_image, write_untrained_run
from tests.quick_python import quick_python


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, repository):
    """What a training run leaves, with random weights and thresholds so low that something is found."""
    return write_untrained_run(tmp_path_factory.mktemp("run"), repository / "configs/quickstart/instant_test.yaml")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(5)
    for name in ("a", "b"):
        cv2.imwrite(str(folder / f"{name}.png"), disc_image(generator, 96, 4, 0)[0])
    return folder


def infer(repository, run_folder, *arguments):
    command = [*quick_python(), "tools/infer.py", "--config-file", run_folder / "config.yaml", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=repository)


def test_the_tool_writes_a_valid_submission_and_goes_on_after_a_bad_file(repository, run_folder, images, tmp_path):
    (images / "broken.png").write_bytes(b"\x89PNG not really")
    tifffile.imwrite(images / "nothing.tif", np.full((20, 30), np.nan, np.float32))
    result = infer(repository, run_folder, "--input", images, "--output", tmp_path / "out")
    assert result.returncode == 1, result.stderr
    assert "broken.png" in result.stdout + result.stderr
    assert "nothing.tif: the image has no finite pixel" in result.stdout + result.stderr
    with open(tmp_path / "out/submission.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"] for row in rows} == {"a", "b"}
    assert any(row["predicted"] for row in rows), "random weights at a low threshold find something"
    assert validate_submission(read_submission(tmp_path / "out/submission.csv"), (96, 96)) == []
    assert read_image(tmp_path / "out/overlay/a_overlay.png").shape[1] == 192
    assert "cpu" in result.stdout


def test_an_image_without_cells_gets_an_empty_row(repository, run_folder, images, tmp_path):
    arguments = ["--input", images / "a.png", "--output", tmp_path / "out", "--score-threshold", 1.01]
    assert infer(repository, run_folder, *arguments, "--save", "submission").returncode == 0
    assert (tmp_path / "out/submission.csv").read_text() == "id,predicted\na,\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["submission.csv"]


def test_detections_are_what_post_processing_is_tuned_on(repository, run_folder, images, tmp_path):
    cfg = load_config(run_folder / "config.yaml", ["TEST.TTA.ENABLED", True])
    segmenter = CellSegmenter.from_config(cfg, find_weights(run_folder / "config.yaml"))
    seen = {name: segmenter.detect(read_image(images / f"{name}.png")) for name in ("a", "b")}
    threshold = round(float(np.median(np.concatenate([found.scores for found in seen.values()]))), 3)
    arguments = ["--input", images, "--output", tmp_path / "out", "--save", "detections", "submission"]
    clear = ["--mask-threshold", 0.3, "--min-area", 0]  # probabilities are kept to 0.0005, and random ones are near 0.5
    result = infer(repository, run_folder, *arguments, "--tta", "--score-threshold", threshold, *clear)
    assert result.returncode == 0, result.stderr
    raw = load_many(sorted((tmp_path / "out/detections").glob("*.npz")))
    assert raw.class_names == segmenter.class_names
    params = PostprocessParams.from_yaml(tmp_path / "out/detections/postprocess.yaml")
    assert set(params.score_thresholds) == {threshold}
    submission = read_submission(tmp_path / "out/submission.csv")
    for name, found in seen.items():
        assert np.array_equal(raw.images[name].scores, found.scores), "of all orientations, also below the threshold"
        assert len(found) > len(postprocess(raw.images[name], params)) == len(submission[name]) > 0


def test_segmenting_is_the_same_for_the_same_image(run_folder, images):
    segmenter = CellSegmenter.from_config(
        load_config(run_folder / "config.yaml"), find_weights(run_folder / "config.yaml")
    )
    image = read_image(images / "a.png")
    first, second = segmenter.segment(image), segmenter.segment(image)
    assert len(first) == len(second) > 0
    assert np.array_equal(first.scores, second.scores)
    assert sum(crop.to_full(96, 96).astype(int) for crop in first.crops).max() == 1


def test_weights_that_do_not_fit_are_refused(run_folder, repository, tmp_path):
    cfg = load_config(repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml", ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    with pytest.raises(CellSegError, match="does not fit"):
        load_trained(model, run_folder / "model_best.pth")
    (tmp_path / "cut.pth").write_bytes((run_folder / "model_best.pth").read_bytes()[:5000])
    with pytest.raises(CellSegError, match="seems damaged"):
        load_trained(model, tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CellSegError, match="holds no weights"):
        load_trained(model, tmp_path / "list.pth")
    with pytest.raises(CellSegError, match="no weights file"):
        load_trained(model, tmp_path / "none.pth")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CellSegError, match="give --weights"):
        find_weights(tmp_path / "config.yaml")
