"""Weights of an earlier training in a model with other classes, channels or heads."""

import logging
import pickle

import numpy as np
import pytest
import torch

from cellseg_d2.config import load_config
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.timm_backbone import TIMM_BACKBONE
from cellseg_d2.weights.adapt import load_pretrained, match_weights
from cellseg_d2.weights.weight_files import read_weight_file
from tests.discs import write_disc_dataset

CLS = "roi_heads.box_predictor.cls_score.weight"
BOX = "roi_heads.box_predictor.bbox_pred.weight"
MASK = "roi_heads.mask_head.predictor.weight"
STEM = "backbone.bottom_up.stem.conv1.weight"


@pytest.fixture
def config(repository):
    def make(classes, *opts):
        path = repository / "configs/quickstart/instant_test.yaml"
        number = ("MODEL.ROI_HEADS.NUM_CLASSES", str(len(classes)), "MODEL.CLASS_NAMES", str(list(classes)))
        return load_config(path, [*number, "MODEL.DEVICE", "cpu", *map(str, opts)])

    return make


@pytest.fixture
def earlier(config, tmp_path):
    """An earlier run's folder: a checkpoint as Detectron2 writes it, and the configuration beside it."""

    def make(classes, *opts, beside=True):
        torch.manual_seed(1)
        cfg = config(classes, *opts)
        model = CellTrainer.build_model(cfg)
        torch.save({"model": model.state_dict(), "iteration": 7}, tmp_path / "model_final.pth")
        if beside:
            (tmp_path / "config.yaml").write_text(cfg.dump())
        return model, tmp_path / "model_final.pth"

    return make


def transferred(cfg, weights):
    torch.manual_seed(2)
    cfg.MODEL.WEIGHTS = str(weights)
    model = CellTrainer.build_model(cfg)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    return fresh, model.state_dict(), load_pretrained(model, cfg)


def test_the_same_classes_take_everything(config, earlier):
    model, path = earlier(["a", "b"])
    _, state, transfer = transferred(config(["a", "b"]), path)
    assert not transfer.adapted
    assert not transfer.initialised
    assert not transfer.unused
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)


def test_classes_are_matched_by_name(config, earlier):
    model, path = earlier(["a", "b"])
    fresh, state, transfer = transferred(config(["b", "new", "a"]), path)
    old = model.state_dict()
    assert torch.equal(state[CLS][[0, 2, 3]], old[CLS][[1, 0, 2]])  # b, a, background
    assert torch.equal(state[CLS][1], fresh[CLS][1])
    assert torch.equal(state[BOX][:4], old[BOX][4:])
    assert torch.equal(state[BOX][4:8], fresh[BOX][4:8])
    assert torch.equal(state[BOX][8:], old[BOX][:4])
    assert torch.equal(state[MASK][[0, 2]], old[MASK][[1, 0]])
    assert transfer.adapted[CLS] == "classes of the same names, 1 of 3 newly initialised"
    assert len(transfer.adapted) == 6, "weights and biases of three predictors"


def test_one_class_serves_all_new_ones(config, earlier):
    model, path = earlier(["cell"])
    _, state, transfer = transferred(config(["a", "b", "c"]), path)
    old = model.state_dict()
    for index in range(3):
        assert torch.equal(state[CLS][index], old[CLS][0])
        assert torch.equal(state[BOX][4 * index : 4 * index + 4], old[BOX])
        assert torch.equal(state[MASK][index], old[MASK][0])
    assert torch.equal(state[CLS][3], old[CLS][1]), "the background stays the background"
    assert transfer.adapted[MASK] == "the only class of the weights for each"
    assert not transfer.initialised


def test_other_classes_start_anew_even_with_the_same_number(config, earlier):
    _, path = earlier(["a", "b"])
    fresh, state, transfer = transferred(config(["x", "y"]), path)
    for name in (CLS, BOX, MASK):
        assert torch.equal(state[name], fresh[name])
        assert transfer.initialised[name] == "other classes"
    assert len(transfer.initialised) == 6
    text = str(transfer)
    assert "newly initialised" in text
    assert CLS in text
    assert "backbone.bottom_up.res2.*" in text


def test_unknown_classes_of_another_number_start_anew(config, earlier):
    _, path = earlier(["a", "b"], beside=False)
    fresh, state, transfer = transferred(config(["a", "b", "c"]), path)
    assert torch.equal(state[CLS], fresh[CLS])
    assert transfer.initialised[CLS] == "3 × 32 in the weights, 4 × 32 here"


@pytest.mark.parametrize(("before", "now"), [(3, 1), (1, 3)])
def test_grey_images_look_the_same_to_other_channels(config, earlier, before, now):
    def channels(count):
        return "MODEL.PIXEL_MEAN", [128.0] * count, "MODEL.PIXEL_STD", [11.58] * count

    old, path = earlier(["a"], *channels(before))
    cfg = config(["a"], *channels(now), "MODEL.WEIGHTS", path)
    new = CellTrainer.build_model(cfg)
    transfer = load_pretrained(new, cfg)
    assert list(transfer.adapted) == [STEM]
    assert not transfer.notes, "the same mean and deviation, whatever the number of channels"
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = old.backbone.eval()(image.expand(-1, before, -1, -1))
        result = new.backbone.eval()(image.expand(-1, now, -1, -1))
    for name in expected:
        torch.testing.assert_close(result[name], expected[name], rtol=1e-3, atol=1e-4)


def test_one_box_head_begins_every_stage_of_a_cascade(config, earlier):
    model, path = earlier(["a"])
    cascade = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    _, state, transfer = transferred(config(["a"], *cascade), path)
    for stage in range(3):
        name = f"roi_heads.box_head.{stage}.fc1.weight"
        assert torch.equal(state[name], model.state_dict()["roi_heads.box_head.fc1.weight"])
        assert transfer.adapted[name] == "from roi_heads.box_head.fc1.weight"
    assert "roi_heads.box_predictor.1.cls_score.weight" in transfer.initialised


def test_what_silently_differs_is_noted(config, earlier):
    _, path = earlier(["a"])
    other = config(["a"], "MODEL.ANCHOR_GENERATOR.SIZES", "[[8,9],[32,48],[64,96],[128,192],[256,384]]")
    _, _, transfer = transferred(other, path)
    assert len(transfer.notes) == 1
    assert "MODEL.ANCHOR_GENERATOR.SIZES" in transfer.notes[0]
    assert transfer.notes[0] in str(transfer)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.RESNETS.RES2_OUT_CHANNELS", 64), "only .* convolutions of the backbone"),
        (("MODEL.RESNETS.NORM", "BN"), "has batch norm, that of the configuration group norm.*FrozenBN"),
    ],
)
def test_weights_of_another_network_are_refused(config, earlier, opts, message):
    _, path = earlier(["a"], *opts)
    with pytest.raises(CellSegError, match=message):
        transferred(config(["a"]), path)


def test_networks_of_timm_are_not_told_of_settings_that_they_do_not_read(config, earlier):
    _, path = earlier(["a"], "MODEL.RESNETS.NORM", "BN")
    cfg = config(["a"], "MODEL.WEIGHTS", path)
    model = CellTrainer.build_model(cfg)
    cfg.MODEL.BACKBONE.NAME = TIMM_BACKBONE
    with pytest.raises(CellSegError, match=r"that of the configuration group norm: choose other weights$"):
        load_pretrained(model, cfg)


def test_weights_of_something_else_are_refused(config, tmp_path):
    torch.save({"model": {"encoder.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(CellSegError, match=r"nothing in .*encoder\.weight"):
        transferred(config(["a"]), tmp_path / "other.pth")


def write_pkl(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def arrays(state):
    return {name: value.numpy() for name, value in state.items()}


def test_the_model_zoo_s_files(config, earlier, tmp_path):
    """A whole model of 80 classes, three channels and three anchors, as the zoo's ``.pkl`` holds it."""
    classes = [str(i) for i in range(80)]
    grey = ("MODEL.PIXEL_MEAN", [128.0] * 3, "MODEL.PIXEL_STD", [1.0] * 3)
    anchors = ("MODEL.ANCHOR_GENERATOR.SIZES", "[[32],[64],[128],[256],[512]]")
    model, _ = earlier(classes, *grey, *anchors, beside=False)
    path = write_pkl(
        tmp_path / "model_final_1.pkl",
        {"model": arrays(model.state_dict()), "__author__": "Detectron2 Model Zoo"},
    )
    _, state, transfer = transferred(config(["a", "b"]), path)
    assert torch.equal(state[STEM], model.state_dict()[STEM].sum(dim=1, keepdim=True))
    assert torch.equal(state["roi_heads.box_head.fc1.weight"], model.state_dict()["roi_heads.box_head.fc1.weight"])
    anew = {name.rsplit(".", 1)[0].rsplit(".", 1)[-1] for name in transfer.initialised}
    assert anew == {"cls_score", "bbox_pred", "predictor", "objectness_logits", "anchor_deltas"}


def test_a_backbone_trained_alone(config, earlier, tmp_path):
    """Names without ``backbone.bottom_up``, as of weights from ImageNet; also the first layer, of another shape."""
    model, _ = earlier(["a"], "MODEL.PIXEL_MEAN", [128.0] * 3, "MODEL.PIXEL_STD", [1.0] * 3)
    prefix = "backbone.bottom_up."
    short = {n.removeprefix(prefix): v for n, v in model.state_dict().items() if n.startswith(prefix)}
    content = {"model": arrays(short), "__author__": "someone", "matching_heuristics": True}
    _, state, transfer = transferred(config(["a"]), write_pkl(tmp_path / "r18.pkl", content))
    assert torch.equal(state[STEM], short["stem.conv1.weight"].sum(dim=1, keepdim=True))
    assert torch.equal(state[f"{prefix}res5.1.conv2.weight"], short["res5.1.conv2.weight"])
    assert not transfer.unused


class Malicious:
    def __reduce__(self):
        return exec, ("raise AssertionError('this ran')",)


def test_files_cannot_run_code(tmp_path):
    path = write_pkl(tmp_path / "bad.pkl", {"model": {"a": Malicious()}, "__author__": "x"})
    with pytest.raises(CellSegError, match=r"builtin(s|__)\.exec"):
        read_weight_file(path)
    torch.save({"model": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(CellSegError, match="cannot be read as weights"):
        read_weight_file(tmp_path / "bad.pth")


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"model": {"a": 1}}])
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CellSegError, match=r"x\.pth holds"):
        read_weight_file(tmp_path / "x.pth")


def test_damaged_files(tmp_path):
    for name in ("x.pth", "x.pkl"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(CellSegError, match="cannot be read as weights") as caught:
            read_weight_file(tmp_path / name)
        assert "weights_only" not in str(caught.value), "PyTorch advises to run the file's code"


def test_weights_of_a_wrapped_model(tmp_path):
    torch.save({"module.a": torch.ones(2)}, tmp_path / "x.pth")
    assert list(read_weight_file(tmp_path / "x.pth").weights) == ["a"]
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = write_pkl(tmp_path / "x.pkl", {"model": {"a": array}, "__author__": "x"})
    np.testing.assert_array_equal(read_weight_file(path).weights["a"], array)


def test_anchors_stored_by_old_versions_are_no_news():
    _, transfer = match_weights({"a": torch.zeros(1)}, {"a": torch.ones(1), "x.anchor_generator.cell": torch.ones(1)})
    assert transfer.loaded == ["a"]
    assert not transfer.unused


def test_pre_training_then_fine_tuning(repository, tmp_path, monkeypatch, caplog, no_curves):
    """One class on one data set, then its two types: the second training starts where the first one ended."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path)
    path = repository / "configs/quickstart/instant_test.yaml"
    opts = ["DATASETS.TEST", "()", "TEST.EVAL_PERIOD", "0", "SOLVER.MAX_ITER", "2", "MODEL.DEVICE", "cpu"]
    one = ["DATASETS.CATEGORY_MAP", "[['*','cell']]", "MODEL.ROI_HEADS.NUM_CLASSES", "1"]
    cfg = prepare_training(load_config(path, [*opts, *one, "OUTPUT_DIR", str(tmp_path / "first")]))
    first = CellTrainer(cfg)
    first.resume_or_load(resume=False)
    first.train()
    (tmp_path / "first/config.yaml").write_text(cfg.dump())  # as Detectron2's set-up does

    weights = ["MODEL.WEIGHTS", str(tmp_path / "first/model_final.pth"), "OUTPUT_DIR", str(tmp_path / "second")]
    second = CellTrainer(prepare_training(load_config(path, [*opts, *weights])))
    with caplog.at_level(logging.INFO, logger="cellseg_d2"):
        second.resume_or_load(resume=True)  # nothing to resume from yet
    assert second.start_iter == 0
    assert "6 adapted, 0 newly initialised" in caplog.text
    before, after = first.model.state_dict(), second.model.state_dict()
    assert torch.equal(after[STEM], before[STEM])
    assert torch.equal(after[MASK][1], before[MASK][0])
    second.train()
    assert (tmp_path / "second/model_final.pth").exists()


def test_a_dense_branch_keeps_what_it_knows_for_other_classes(config, earlier):
    """Foreground and field are of no class; only the kinds of cells are learnt anew."""
    dense = ("MODEL.META_ARCHITECTURE", "DenseSegmenter", "MODEL.DENSE.CHANNELS", "32")
    model, path = earlier(["cell"], *dense)
    fresh, state, transfer = transferred(config(["a", "b"], *dense), path)
    before = model.state_dict()
    assert set(transfer.initialised) == {"dense_head.classifier.weight", "dense_head.classifier.bias"}
    assert all(torch.equal(state[name], before[name]) for name in before)

    model, path = earlier(["a", "b"], *dense)
    fresh, state, transfer = transferred(config(["b", "c"], *dense), path)
    name, before = "dense_head.classifier.weight", model.state_dict()
    assert torch.equal(state[name][0], before[name][1])
    assert torch.equal(state[name][1], fresh[name][1])
    assert "classes of the same names" in transfer.adapted[name]
