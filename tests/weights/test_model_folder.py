"""A model that is handed on is the model that was trained, and is found by name or folder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from cellseg_d2.config import default_config, load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.io.settings import differences, flat
from cellseg_d2.io.text import read_yaml
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.weights import model_folder
from cellseg_d2.weights.model_folder import export_model, find_model, shipped_models
from cellseg_d2.weights.weight_files import read_weight_file
from tests.discs import CLASSES, disc_image, write_untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, repository):
    return write_untrained_run(tmp_path_factory.mktemp("run"), repository / "configs/quickstart/instant_test.yaml")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    cfg = load_config(run / "config.yaml")
    return export_model(cfg, run / "model_best.pth", tmp_path_factory.mktemp("models") / "mine")


def test_it_detects_what_the_run_s_checkpoint_detects(run, tmp_path):
    folder = export_model(load_config(run / "config.yaml"), run / "model_best.pth", tmp_path / "full", half=False)
    image, _ = disc_image(np.random.default_rng(1), 96, 4, 0)
    before = CellSegmenter.from_config(load_config(run / "config.yaml"), run / "model_best.pth").detect(image)
    after = CellSegmenter.from_config(load_config(folder / "config.yaml"), folder / "model.safetensors").detect(image)
    assert len(before) > 0
    for name in ("boxes", "scores", "classes", "masks"):
        assert np.array_equal(getattr(after, name), getattr(before, name))


def test_the_configuration_keeps_the_model_and_leaves_the_run(run, exported):
    text = (exported / "config.yaml").read_text()
    assert str(run) not in text
    assert "DATASETS" not in text
    assert "SOLVER" not in text
    one, other = load_config(run / "config.yaml"), load_config(exported / "config.yaml")
    usual = flat(default_config().TEST)
    assert list(CLASSES) == other.MODEL.CLASS_NAMES
    assert differences(one.MODEL, other.MODEL) == []
    for key, value in flat(one.TEST).items():
        assert flat(other.TEST)[key] == (value if key.split(".")[0] in model_folder.PREDICTION_TEST else usual[key])
    assert one.TEST.EVAL_PERIOD != other.TEST.EVAL_PERIOD
    assert "CASCADE" not in text  # a tuple that equals the default's, but for its lists
    assert one.INPUT.AUGMENTATIONS != other.INPUT.AUGMENTATIONS == default_config().INPUT.AUGMENTATIONS
    assert sorted(path.name for path in exported.iterdir()) == ["config.yaml", "model.safetensors"]
    # All values, whatever the defaults of another version are.
    written = yaml.safe_load(text)["TEST"]["POSTPROCESS"]
    assert written == PostprocessParams.from_config(one).to_config()
    assert written["SCORE_THRESHOLDS"] == [0.1]


def test_prediction_reads_no_other_keys_than_those_that_are_written(run):
    cfg = load_config(run / "config.yaml", ["INPUT.ZOOM_TEST", "1.5", "INPUT.INTENSITY", "percentile"])
    image, _ = disc_image(np.random.default_rng(1), 96, 4, 0)
    expected = CellSegmenter.from_config(cfg, run / "model_best.pth").segment(image)
    cfg.INPUT = CfgNode({key: value for key, value in cfg.INPUT.items() if key in model_folder.PREDICTION_INPUT})
    cfg.TEST = CfgNode({key: value for key, value in cfg.TEST.items() if key in model_folder.PREDICTION_TEST})
    found = CellSegmenter.from_config(cfg, run / "model_best.pth").segment(image)
    assert len(found) > 0
    assert np.array_equal(found.labels, expected.labels)


def test_a_postprocess_yaml_of_an_earlier_version_is_laid_over_the_configuration(run, tmp_path):
    cfg = load_config(run / "config.yaml")
    folder = export_model(cfg, run / "model_best.pth", tmp_path / "old")
    (folder / "postprocess.yaml").write_text("score_thresholds: [0.7]\nnms_iou: 0.4\n")
    old = CellSegmenter.from_pretrained(folder, device="cpu").params
    assert old == replace(PostprocessParams.from_config(cfg), score_thresholds=(0.7,), nms_iou=0.4)
    read = load_config(folder / "config.yaml", ["TEST.POSTPROCESS.NMS_IOU", "0.6"])
    assert PostprocessParams.from_config(read) == replace(old, nms_iou=0.6)
    export_model(read, run / "model_best.pth", folder)
    assert not (folder / "postprocess.yaml").exists()
    assert CellSegmenter.from_pretrained(folder, device="cpu").params == replace(old, nms_iou=0.6)


@pytest.mark.parametrize(
    ("model", "config"), [("cells", "cells_effnet_lite0_FPN"), ("cells_R_18", "cells_R_18_FPN_GN")]
)
def test_the_shipped_models_and_their_training_configurations_agree(model, config, repository):
    own = load_config(find_model(model) / "config.yaml")
    trained = load_config(repository / f"configs/quickstart/{config}.yaml")
    if own.TEST.SCALE_NEIGHBORS:  # sizes are merged, of which not all see a cell, and many show dirt
        assert own.TEST.POSTPROCESS.SCORE_THRESHOLDS < trained.TEST.POSTPROCESS.SCORE_THRESHOLDS
        assert own.TEST.POSTPROCESS.DOUBTFUL_AREAS > trained.TEST.POSTPROCESS.DOUBTFUL_AREAS
        assert own.TEST.POSTPROCESS.MIN_AREA_SHARE > trained.TEST.POSTPROCESS.MIN_AREA_SHARE
        for key in ("SCORE_THRESHOLDS", "MIN_AREAS", "DOUBTFUL_AREAS", "MIN_AREA_SHARE"):
            own.TEST.POSTPROCESS[key] = trained.TEST.POSTPROCESS[key]
    assert own.TEST.POSTPROCESS == trained.TEST.POSTPROCESS
    written = flat(read_yaml(find_model(model) / "config.yaml")["MODEL"])
    differing = [key for key in differences(own.MODEL, trained.MODEL) if key in written]
    assert set(differing) == {"WEIGHTS", "CLASS_NAMES"}


def test_half_precision_takes_half_the_space(run, exported):
    before = read_weight_file(run / "model_best.pth").weights
    after = read_weight_file(exported / "model.safetensors").weights
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name].float(), value, rtol=1e-3, atol=1e-7)
    size = sum(2 * value.numel() for value in before.values())
    assert size < (exported / "model.safetensors").stat().st_size < 1.2 * size


def test_all_files_can_be_read_by_whom_the_folder_is_handed_to(exported):
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1


def test_models_are_found_by_name_and_as_weights(exported, monkeypatch):
    monkeypatch.setattr(model_folder, "SHIPPED", exported.parent)
    assert shipped_models() == ["mine"]
    assert find_model("mine") == exported
    assert find_model(exported) == exported
    assert PathManager.get_local_path("cellseg://mine/model.safetensors") == str(exported / "model.safetensors")
    with pytest.raises(CellSegError, match=r"no model 'other'.*mine"):
        find_model("other")
    with pytest.raises(CellSegError, match="no model 'other'"):
        PathManager.get_local_path("cellseg://other/model.safetensors")


def test_a_damaged_file_is_told(exported, tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes((exported / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(CellSegError, match="seems damaged"):
        read_weight_file(path)


@pytest.mark.parametrize("blocked", ["config.yaml", "model.safetensors"])
def test_both_files_are_replaced_or_none(run, tmp_path, blocked):
    cfg = load_config(run / "config.yaml")
    folder = export_model(cfg, run / "model_best.pth", tmp_path / "mine")
    (folder / blocked).unlink()
    (folder / blocked).mkdir()
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS = [0.7]
    cfg.INPUT.ZOOM_TEST = 2.0
    with pytest.raises(OSError, match="directory"):
        export_model(cfg, run / "model_best.pth", folder, half=False)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    (folder / blocked).rmdir()
    export_model(cfg, run / "model_best.pth", folder, half=False)
    written = load_config(folder / "config.yaml")
    assert list(written.TEST.POSTPROCESS.SCORE_THRESHOLDS) == [0.7]
    assert written.INPUT.ZOOM_TEST == 2.0


@pytest.mark.parametrize("name", ["config.yaml", "postprocess.yaml", "model_final.pth"])
def test_files_of_no_earlier_export_are_left_alone(run, tmp_path, call_tool, name):
    given = ("--config-file", run / "config.yaml", "--output", tmp_path)
    (tmp_path / name).write_text("of something else")
    code, said = call_tool("export_model", *given)
    assert code == 2
    assert f"{tmp_path} already holds {name}, which is of no earlier export; choose another folder" in said
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of something else"]
    (tmp_path / name).unlink()
    assert call_tool("export_model", *given)[0] == 0
    assert call_tool("export_model", *given)[0] == 0, "an earlier export is replaced"
