"""Configurations: epochs, classes, weights, and errors that say what to do."""

import json
import math
import socket
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.modeling import build_model
from torch import nn

from cellseg_d2.config import RANGES, find_config, load_config
from cellseg_d2.engine.setup import prepare_training, require_weights, resolve_epochs
from cellseg_d2.errors import CellSegError
from cellseg_d2.io import network
from cellseg_d2.weights.weights import find_weights
from tests.discs import CLASSES, write_disc_dataset


@pytest.fixture
def instant(repository):
    return repository / "configs/quickstart/instant_test.yaml"


CONFIGURATIONS = sorted(str(p) for p in (Path(__file__).parents[2] / "configs").rglob("*.yaml"))
# What is laid over the configuration of a model, and names no network.
NETWORKS = [path for path in CONFIGURATIONS if not path.endswith("correction/training.yaml")]


@pytest.mark.parametrize("path", NETWORKS)
def test_every_shipped_configuration_builds_its_model(path):
    """Those from scratch have nothing frozen, and every level of the pyramid has its anchors."""
    cfg = load_config(path, ["MODEL.DEVICE", "cpu"])
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):  # shapes, without memory for them or random weights
        model = build_model(cfg)
    first = next(module for module in model.backbone.bottom_up.modules() if isinstance(module, nn.Conv2d))
    assert len(cfg.MODEL.PIXEL_MEAN) == len(cfg.MODEL.PIXEL_STD) == first.in_channels
    if model.proposal_generator is not None:  # boxes, beside a dense branch or without one
        assert model.proposal_generator.anchor_generator.num_anchors == [
            len(sizes) * len(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS[0]) for sizes in cfg.MODEL.ANCHOR_GENERATOR.SIZES
        ]
    if not cfg.MODEL.WEIGHTS and cfg.DATASETS.TRAIN:
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert cfg.MODEL.RESNETS.NORM == "GN" or cfg.MODEL.TIMM.PRETRAINED
    elif cfg.MODEL.WEIGHTS.startswith("detectron2://"):
        assert cfg.MODEL.RESNETS.NORM == "FrozenBN"
    thresholds = cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS
    assert len(thresholds) in (1, cfg.MODEL.ROI_HEADS.NUM_CLASSES)


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


# Names that PyTorch has for what this machine lacks or what computes nothing, and names that nobody has.
DEVICES = [
    *("mps", "xla", "xpu", "hip", "ipu", "vulkan", "mkldnn", "privateuseone", "meta", "cuda:99", "cuda:-1", "cuda:x"),
    *("", "gpu", "CPU", "cpuu", "cpu:x", "0", "cpu,cuda", "a" * 1000, "cpu\n"),
]


@pytest.mark.parametrize("device", DEVICES)
def test_devices_on_which_nothing_can_be_computed(instant, device):
    with pytest.raises(CellSegError, match=r"^MODEL.DEVICE is .*use cpu|^MODEL.DEVICE is .*GPU|^the options"):
        load_config(instant, ["MODEL.DEVICE", device])


def test_the_cpu_has_one_name(instant):
    assert load_config(instant, ["MODEL.DEVICE", "cpu:0"]).MODEL.DEVICE == "cpu"


@pytest.mark.parametrize("key", RANGES)
def test_numbers_out_of_their_range_are_named_by_every_tool(instant, tmp_path, key):
    (low, high), kind = RANGES[key], type(reduce(getitem, key.split("."), load_config(instant)))
    wrong = [kind(low - 1), *([] if high == math.inf else [kind(high + 1)])]
    if kind is float:
        wrong += [math.nan, -math.inf, *([] if high == math.inf else [math.inf])]
    for value in wrong:
        content = reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)
        (tmp_path / "a.yaml").write_text(yaml.safe_dump({"_BASE_": str(instant), **content}))
        with pytest.raises(CellSegError, match=f"^{key} is "):
            load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (
            "INPUT.INTENSITY_PERCENTILES",
            ["[-1, 99]", "[1, 101]", "[50, 50]", "[99, 1]", "[1]", "[1, 2, 3]", "['a', 'b']"],
        ),
        ("INPUT.INTENSITY", ["other", ""]),
        ("TEST.POSTPROCESS.SCORE_THRESHOLDS", ["[]", "[-0.5]", "['a']"]),
        ("TEST.POSTPROCESS.NMS_IOU", ["0.0", "1.5"]),
        ("TEST.FUSION.IOU", ["0.0", "2.0"]),
        ("TEST.SCALES", ["[]", "[0, 1]", "[-1, 1]", "[None]", "['a']"]),
        ("TEST.TTA.SCALES", ["[]", "[20.0]", "[None]"]),
    ],
)
def test_settings_of_prediction_are_checked_before_a_training_too(instant, key, values):
    for value in values:
        with pytest.raises(CellSegError, match=r"INTENSITY|score_thresholds|nms_iou|IoU|SCALES is"):
            load_config(instant, [key, value])


def test_a_base_in_the_home_of_nobody(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE_: ~nosuchuser/b.yaml\n")
    with pytest.raises(CellSegError, match=r"builds on '~nosuchuser/b\.yaml', but there is no file"):
        load_config(tmp_path / "a.yaml")


def test_thresholds_that_do_not_fit_the_classes_end_a_training_at_its_start(repository, tmp_path, monkeypatch):
    """What the first sentence asks for is all that is needed."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path)
    config = repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"
    opts = ["MODEL.WEIGHTS", "", "DATASETS.TRAIN", "('discs_train',)", "DATASETS.TEST", "('discs_val',)"]
    asked = r"set MODEL\.ROI_HEADS\.NUM_CLASSES 2 and TEST\.POSTPROCESS\.SCORE_THRESHOLDS to one value or 2, or make"
    with pytest.raises(CellSegError, match=asked):
        prepare_training(load_config(config, opts))
    opts += ["MODEL.ROI_HEADS.NUM_CLASSES", "2"]
    for train in (True, False):
        with pytest.raises(
            CellSegError, match=r"score_thresholds has 3 values, but the model has 2 classes \(bright, dark"
        ):
            prepare_training(load_config(config, opts), train)
    prepare_training(load_config(config, [*opts, "TEST.POSTPROCESS.SCORE_THRESHOLDS", "[0.4]"]))


def test_there_is_nothing_to_learn_of_no_cells(instant, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = write_disc_dataset(tmp_path)
    for part in ("val", "train"):
        content = json.loads((folder / f"instances_{part}.json").read_text())
        for annotation in content["annotations"]:
            annotation["iscrowd"] = 1
        (folder / f"instances_{part}.json").write_text(json.dumps(content))
        if part == "val":
            prepare_training(load_config(instant))
            assert "not one cell is annotated in discs_val" in caplog.text
    with pytest.raises(CellSegError, match=r"^not one cell is annotated in discs_train, so there is nothing to learn"):
        prepare_training(load_config(instant))


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(CellSegError, match="no configuration file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("MODEL: {NO_SUCH_KEY: 1}\nVERSION: 2\n")
    with pytest.raises(CellSegError, match="NO_SUCH_KEY"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "worse.yaml").write_text("MODEL: [unclosed")
    with pytest.raises(CellSegError, match="not valid YAML"):
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
    with pytest.raises(CellSegError, match=r"elsewhere_train.*convert-to-coco"):
        prepare_training(load_config(instant, pasted))
    with pytest.raises(CellSegError, match=r"discs_train.*convert-to-coco"):
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


@pytest.mark.parametrize(
    "name", ["quickstart/instant_test", "quickstart/instant_test.yaml", "configs/quickstart/instant_test.yaml"]
)
def test_the_projects_own_configurations_are_found_by_name(name, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    own = load_config(repository / "configs/quickstart/instant_test.yaml", ["SEED", "1"])
    assert load_config(name, ["SEED", "1"]) == own


def test_a_name_that_is_not_there_brings_up_those_that_come_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CellSegError, match="nor one of the project's own of that name, such as quickstart/instant_test"
    ):
        find_config("quickstart/instant_tset")
    with pytest.raises(CellSegError, match="no configuration file"):
        find_config("../configs/quickstart/instant_test.yaml")


def test_nothing_lies_beside_a_configuration_but_in_its_own_folder(tmp_path, monkeypatch):
    """Not in a folder that has the name by which the configuration is called."""
    monkeypatch.chdir(tmp_path)
    usual = load_config("quickstart/instant_test").TEST.POSTPROCESS.SCORE_THRESHOLDS
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart/postprocess.yaml").write_text("score_thresholds: [0.987]\n")
    (tmp_path / "quickstart/model_best.pth").touch()
    assert load_config("quickstart/instant_test").TEST.POSTPROCESS.SCORE_THRESHOLDS == usual != [0.987]
    with pytest.raises(CellSegError, match="give --weights"):
        find_weights("quickstart/instant_test")
    (tmp_path / "quickstart/own.yaml").write_text("VERSION: 2\n")
    assert load_config("quickstart/own.yaml").TEST.POSTPROCESS.SCORE_THRESHOLDS == [0.987]
    assert find_weights("quickstart/own.yaml").is_file()


@pytest.mark.parametrize(("mixed", "mapped", "vote"), [(False, False, True), (True, False, False), (True, True, True)])
def test_the_vote_is_on_where_images_hold_one_class(instant, tmp_path, monkeypatch, caplog, mixed, mapped, vote):
    folder = write_disc_dataset(tmp_path, images=2)
    if mixed:
        path = folder / "instances_train.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["category_id"] = 2
        path.write_text(json.dumps(content))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    opts = ["DATASETS.TRAIN", "('discs_train',)", "DATASETS.TEST", "('discs_val',)", "MODEL.DEVICE", "cpu"]
    if mapped:
        opts += ["DATASETS.CATEGORY_MAP", "[['*','cell']]", "MODEL.ROI_HEADS.NUM_CLASSES", "1"]
        opts += ["TEST.POSTPROCESS.SCORE_THRESHOLDS", "[0.5]", "TEST.POSTPROCESS.MASK_THRESHOLDS", "[0.5]"]
    cfg = prepare_training(load_config(instant, opts))
    assert cfg.TEST.POSTPROCESS.VOTE is vote
    assert ("with cells of several classes: 1" in caplog.text) is not vote
