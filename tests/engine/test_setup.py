"""Configurations: epochs, classes, weights, and errors that say what to do."""

import socket
from pathlib import Path

import pytest
from detectron2.modeling import build_model
from torch import nn

from cellseg_d2.config import load_config
from cellseg_d2.engine.setup import prepare_training, require_weights, resolve_epochs
from cellseg_d2.errors import CellSegError
from cellseg_d2.io import network
from tests.discs import CLASSES, write_disc_dataset


@pytest.fixture
def instant(repository):
    return repository / "configs/quickstart/instant_test.yaml"


CONFIGURATIONS = sorted(str(p) for p in (Path(__file__).parents[2] / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGURATIONS)
def test_every_shipped_configuration_builds_its_model(path):
    """Those from scratch have nothing frozen, and every level of the pyramid has its anchors."""
    cfg = load_config(path, ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    first = next(module for module in model.backbone.bottom_up.modules() if isinstance(module, nn.Conv2d))
    assert len(cfg.MODEL.PIXEL_MEAN) == len(cfg.MODEL.PIXEL_STD) == first.in_channels
    assert model.proposal_generator.anchor_generator.num_anchors == [
        len(sizes) * len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0]) for sizes in cfg.MODEL.ANCHOR_GENERATOR.SIZES
    ]
    if not cfg.MODEL.WEIGHTS and cfg.DATASETS.TRAIN:
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert cfg.MODEL.RESNETS.NORM == "GN" or cfg.MODEL.TIMM.PRETRAINED
    elif cfg.MODEL.WEIGHTS.startswith("detectron2://"):
        assert cfg.MODEL.RESNETS.NORM == "FrozenBN"
    thresholds = cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS
    assert len(thresholds) == 1 or len(thresholds) >= cfg.MODEL.ROI_HEADS.NUM_CLASSES


def test_networks_are_what_their_files_names_say(repository):
    def load(name):
        return load_config(repository / f"configs/sartorius/{name}.yaml").MODEL

    assert (load("cascade_mask_rcnn_R_50_FPN").RESNETS.DEPTH, load("cascade_mask_rcnn_R_101_FPN").RESNETS.DEPTH) == (
        50,
        101,
    )
    strongest = load("cascade_mask_rcnn_X_101_32x8d_FPN")
    assert (strongest.RESNETS.NUM_GROUPS, strongest.RESNETS.WIDTH_PER_GROUP) == (32, 8)
    assert strongest.ROI_HEADS.NAME == "CascadeROIHeads"
    assert load("mask_rcnn_R_50_FPN_mask56").ROI_MASK_HEAD.POOLER_RESOLUTION == 28
    assert load("mask_rcnn_R_50_FPN").ROI_MASK_HEAD.POOLER_RESOLUTION == 14


@pytest.mark.parametrize("path", CONFIGURATIONS)
def test_every_shipped_configuration_loads_and_builds_its_augmentations(path):
    from cellseg_d2.data.augmentations.build import build_test_augmentations, build_train_augmentations

    cfg = load_config(path)
    assert cfg.MODEL.DEVICE in ("cpu", "cuda")
    assert build_train_augmentations(cfg)
    assert build_test_augmentations(cfg)


def test_the_report_s_recipe(repository):
    cfg = load_config(repository / "configs/sartorius/report_baseline.yaml")
    resolve_epochs(cfg, 606)
    solver = cfg.SOLVER
    assert (solver.OPTIMIZER, solver.BASE_LR, solver.MOMENTUM, solver.WEIGHT_DECAY) == ("SGD", 0.001, 0.9, 0.0005)
    assert solver.IMS_PER_BATCH == 5
    assert solver.MAX_ITER == 970  # 8 · 606 / 5, rounded up
    assert cfg.TEST.EVAL_PERIOD == solver.CHECKPOINT_PERIOD == 122
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 539
    assert list(cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS) == [0.59]


def test_epochs_become_iterations(instant):
    cfg = load_config(instant, ["SOLVER.EPOCHS", "3", "SOLVER.STEP_EPOCHS", "[1,2]", "SOLVER.IMS_PER_BATCH", "4"])
    resolve_epochs(cfg, 10)
    assert cfg.SOLVER.MAX_ITER == 8
    assert cfg.SOLVER.STEPS == (3, 5)
    assert cfg.SOLVER.CHECKPOINT_PERIOD == 4, "given in iterations, left as it is"


def test_iterations_stay_without_epochs(instant):
    cfg = load_config(instant)
    before = cfg.dump()
    resolve_epochs(cfg, 10)
    assert cfg.dump() == before


def test_a_seed_is_always_there(instant):
    assert load_config(instant, ["SEED", "-1"]).SEED >= 0
    assert load_config(instant, ["SEED", "5"]).SEED == 5


def test_a_resumed_run_keeps_the_seed_that_was_drawn(instant, tmp_path):
    opts = ["OUTPUT_DIR", str(tmp_path), "SEED", "-1"]
    assert load_config(instant, opts, resume=True).SEED >= 0, "nothing to resume yet"
    (tmp_path / "run.json").write_text('{"seed": 0}')
    assert load_config(instant, opts, resume=True).SEED == 0
    assert load_config(instant, opts).SEED != 0
    assert load_config(instant, [*opts, "SEED", "5"], resume=True).SEED == 5


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BASE_LR"], "no partner"),
        (["SOLVER.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
        (["SOLVER.MAX_ITER", "many"], "MAX_ITER|many"),
        (["MODEL.DEVICE", "cuda:7"], "no GPU"),
    ],
)
def test_wrong_options_are_named(instant, opts, message):
    with pytest.raises(CellSegError, match=message):
        load_config(instant, opts)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(CellSegError, match="no configuration file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("MODEL: {NO_SUCH_KEY: 1}\nVERSION: 2\n")
    with pytest.raises(CellSegError, match="NO_SUCH_KEY"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "worse.yaml").write_text("MODEL: [unclosed")
    with pytest.raises(CellSegError, match="no valid YAML"):
        load_config(tmp_path / "worse.yaml")


def test_preparation_registers_and_notes_the_classes(instant, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path)
    cfg = prepare_training(load_config(instant))
    assert list(cfg.MODEL.CLASS_NAMES) == list(CLASSES)
    with pytest.raises(CellSegError, match="NUM_CLASSES 2"):
        prepare_training(load_config(instant, ["MODEL.ROI_HEADS.NUM_CLASSES", "5"]))
    with pytest.raises(CellSegError, match="FrozenBN"):
        prepare_training(load_config(instant, ["MODEL.RESNETS.NORM", "FrozenBN"]))
    timm = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone"]
    with pytest.raises(CellSegError, match=r"MODEL\.TIMM\.PRETRAINED"):
        prepare_training(load_config(instant, timm))
    for start in (["MODEL.TIMM.NORM", ""], ["MODEL.TIMM.PRETRAINED", "hub"]):
        prepare_training(load_config(instant, [*timm, *start]))
    pasted = ["INPUT.COPY_PASTE.PROBABILITY", "0.5", "INPUT.COPY_PASTE.DATASETS", "('elsewhere_train',)"]
    with pytest.raises(CellSegError, match=r"elsewhere_train.*convert_to_coco"):
        prepare_training(load_config(instant, pasted))
    with pytest.raises(CellSegError, match=r"discs_train.*convert_to_coco"):
        prepare_training(load_config(instant, ["DATASETS.TRAIN", "('elsewhere_train',)"]))


def test_weights_that_cannot_be_had(tmp_path):
    with pytest.raises(CellSegError, match="from scratch"):
        require_weights(str(tmp_path / "none.pth"))
    (tmp_path / "here.pth").write_bytes(b"x")
    assert require_weights(str(tmp_path / "here.pth")) == str(tmp_path / "here.pth")
    assert require_weights("") == ""


def test_weights_on_a_server_that_says_nothing_are_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(network, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/model.pth"
        with pytest.raises(CellSegError, match=r"cannot be had \(TimeoutError: timed out.*the ways out"):
            require_weights(url)
