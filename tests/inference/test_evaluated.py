"""What is scored is what predicts: evaluation against ``infer`` and ``evaluate``, as users call them."""

import json

import pytest
import torch
from detectron2.data import DatasetCatalog

from cellseg_d2.cli import convert_to_coco, evaluate, infer, make_simulated, train_net
from cellseg_d2.config import load_config
from cellseg_d2.data.catalog import register_folder
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.evaluated import EvaluatedSegmenter, without_annotations
from cellseg_d2.modeling.build import build_network
from cellseg_d2.weights.model_folder import SHIPPED
from tests.discs import write_disc_dataset, write_untrained_run

ONE_CLASS = ("DATASETS.CATEGORY_MAP", "[['*','cell']]")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Simulated neurons, one image of each type for validation, and discs."""
    root = tmp_path_factory.mktemp("datasets")
    simulated = root / "simulated"
    size = ["--size", "170", "140", "--images-per-type", "2", "--test-per-type", "1", "--images-per-well", "1"]
    make_simulated.main(["--output", str(simulated), *size])
    given = ["--csv", str(simulated / "train.csv"), "--images", str(simulated / "train")]
    convert_to_coco.main([*given, "--output", str(root / "cells"), "--val-fraction", "0.5"])
    write_disc_dataset(root)
    return root


TWO_VIEWS = ("TEST.TTA.ENABLED", "True", "TEST.TTA.FLIPS", "horizontal", "TEST.TTA.QUARTER_TURNS", "False")


@pytest.mark.parametrize(
    "opts", [(), ("TEST.TILE", "128", "TEST.SCALES", "[0.75,1.0]"), (*TWO_VIEWS, "TEST.SCALES", "[1.0]")]
)
def test_an_evaluation_gives_the_score_of_what_infer_predicts(datasets, tmp_path, monkeypatch, opts):
    """At several scales, in one window or in many, with test-time augmentation: with the shipped model."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    config, truth = str(SHIPPED / "cells/config.yaml"), str(datasets / "cells/instances_val.json")
    given = ["MODEL.WEIGHTS", str(SHIPPED / "cells/model.safetensors"), "DATASETS.TEST", "('cells_val',)", *ONE_CLASS]
    given += ["OUTPUT_DIR", str(tmp_path / "run"), "MODEL.DEVICE", "cpu", *opts]
    train_net.main(["--config-file", config, "--eval-only", *given])
    scored = tmp_path / "run/inference/cells_val"
    infer.main(["--input", truth, "--output", str(tmp_path / "out"), "--device", "cpu", "--save", "submission", *opts])
    predicted = tmp_path / "out/submission.csv"
    evaluate.main(["--predictions", str(predicted), "--ground-truth", truth, "--json", str(tmp_path / "score.json")])
    of_evaluation = json.loads((scored / "competition.json").read_text())
    of_predictions = json.loads((tmp_path / "score.json").read_text())
    assert of_evaluation["mean"] == of_predictions["mean"] > 0.1
    assert sorted(predicted.read_text().splitlines()) == sorted((scored / "submission.csv").read_text().splitlines())


@pytest.fixture
def run(tmp_path, repository):
    return write_untrained_run(tmp_path, repository / "configs/quickstart/instant_test.yaml")


def test_a_loader_that_gives_images_decides_what_the_network_sees(run, datasets):
    cfg = load_config(run / "config.yaml", ["MODEL.DEVICE", "cpu"])
    register_folder(datasets / "discs")
    entry = DatasetCatalog.get("discs_val")[0]
    network = build_network(cfg)
    model = EvaluatedSegmenter(cfg, network)
    assert network.training
    model.eval()
    with torch.no_grad():
        [named] = model([without_annotations(entry)])
        [given] = model([CellDatasetMapper(cfg, is_train=False)(entry)])
    assert len(named["cells"]) > 0
    assert "cells" not in given
    assert torch.equal(named["instances"].scores, given["instances"].scores)
    assert torch.equal(named["instances"].pred_boxes.tensor, given["instances"].pred_boxes.tensor)
    assert torch.equal(named["instances"].pred_masks.probabilities, given["instances"].pred_masks.probabilities)


def test_an_image_of_another_size_than_its_annotations_is_refused(run, datasets):
    cfg = load_config(run / "config.yaml", ["MODEL.DEVICE", "cpu"])
    register_folder(datasets / "discs")
    entry = {**without_annotations(DatasetCatalog.get("discs_val")[0]), "width": 97}
    model = EvaluatedSegmenter(cfg, build_network(cfg)).eval()
    with torch.no_grad(), pytest.raises(CellSegError, match=r"val0\.png is 96 × 96 .* annotations are for 96 × 97"):
        model([entry])


def test_a_training_goes_on_in_its_mode_after_an_evaluation(run, datasets, monkeypatch, tmp_path):
    cfg = load_config(run / "config.yaml", ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])
    register_folder(datasets / "discs")
    network = build_network(cfg)
    scores = []
    for mode in (True, False):
        network.train(mode)
        scores.append(CellTrainer.test(cfg, network)["competition"])
        assert {module.training for module in network.modules()} == {mode}
    assert scores[0] == scores[1]
    assert scores[0]["fp50"] > 0, "what an untrained network finds"
