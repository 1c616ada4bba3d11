"""A model exported for plain Detectron2 detects the same there, in a process that cannot import this package."""

import subprocess

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from cellseg_d2.cli.export_model import main
from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.weights.plain_detectron2 import check_plain, export_plain_detectron2, plain_settings
from tests.discs import CLASSES, disc_image
from tests.quick_python import quick_python

HEIGHT, WIDTH = 150, 210
# A stock network, small, and an input that is resized as Detectron2 does.
STOCK = """\
_BASE_: {base}
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  PIXEL_MEAN: [128.0, 128.0, 128.0]
  PIXEL_STD: [11.58, 11.58, 11.58]
  BACKBONE: {{NAME: build_resnet_fpn_backbone}}
  RESNETS: {{RES2_OUT_CHANNELS: 64, STEM_OUT_CHANNELS: 64}}
INPUT: {{INTENSITY: auto, ZOOM_TEST: 0.0, MIN_SIZE_TEST: 128, MAX_SIZE_TEST: 300}}
"""
# What a user of Detectron2 types for a model of three channels and for one of a single one; ``unpasted`` are the masks
# before Detectron2 draws them into the image.
PREDICT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cellseg_d2":
            raise ImportError("blocked")
sys.meta_path.insert(0, Block())

import cv2, numpy as np, torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model

image = cv2.imread(sys.argv[1])
for folder in sys.argv[2:]:
    cfg = get_cfg()
    cfg.merge_from_file(folder + "/config.yaml")
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = folder + "/model_final.pth", "cpu"
    if len(cfg.MODEL.PIXEL_MEAN) == 3:
        predictor = DefaultPredictor(cfg)
        found, model = predictor(image)["instances"], predictor.model
        seen = predictor.aug.get_transform(image).apply_image(image)
    else:
        model = build_model(cfg).eval()
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        assert cfg.INPUT.MIN_SIZE_TEST == 0, "the size is left as it is"
        seen = image[:, :, :1]
    tensor = torch.as_tensor(np.ascontiguousarray(seen.transpose(2, 0, 1)).astype("float32"))
    inputs = [{"image": tensor, "height": image.shape[0], "width": image.shape[1]}]
    with torch.no_grad():
        unpasted = model.inference(inputs, do_postprocess=False)[0].pred_masks[:, 0]
        found = model(inputs)[0]["instances"] if len(cfg.MODEL.PIXEL_MEAN) == 1 else found
    pasted, classes = found.pred_masks, found.pred_classes
    np.savez(
        folder + "/found.npz",
        boxes=found.pred_boxes.tensor, scores=found.scores, classes=classes, pasted=pasted, masks=unpasted,
    )
assert not any(name.split(".")[0] == "cellseg_d2" for name in sys.modules)
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory, repository):
    path = tmp_path_factory.mktemp("stock") / "config.yaml"
    path.write_text(STOCK.format(base=repository / "configs/quickstart/instant_test.yaml"))
    return path


def write_weights(cfg, path):
    """Random weights, with heads so far from zero that scores and masks are of all kinds."""
    torch.manual_seed(1)
    state = build_model(cfg).state_dict()
    for name, factor in {"cls_score": 30, "objectness_logits": 30, "mask_head.predictor": 1000}.items():
        for weight in (value for key, value in state.items() if key.endswith(f"{name}.weight")):
            weight *= factor
    torch.save({"model": state}, path)
    return path


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    image, _ = disc_image(np.random.default_rng(3), max(HEIGHT, WIDTH), 12, 0)
    path = tmp_path_factory.mktemp("image") / "image.png"
    cv2.imwrite(str(path), image[:HEIGHT, :WIDTH])
    return path


def test_plain_detectron2_detects_the_same(config_file, image_file, tmp_path, capsys):
    one_channel = ["MODEL.PIXEL_MEAN", "[110.0]", "MODEL.PIXEL_STD", "[40.0]", "INPUT.ZOOM_TEST", "1.0"]
    before, folders = [], [tmp_path / "three", tmp_path / "one"]
    image = cv2.imread(str(image_file), cv2.IMREAD_GRAYSCALE)
    for folder, options in zip(folders, ([], one_channel), strict=True):
        cfg = load_config(config_file, ["MODEL.DEVICE", "cpu", *options])
        cfg.MODEL.CLASS_NAMES = list(CLASSES)
        weights = write_weights(cfg, tmp_path / "model_best.pth")
        before.append(CellSegmenter.from_config(cfg, weights).detect(image))
        (tmp_path / "config.yaml").write_text(cfg.dump())
        main(["--config-file", str(tmp_path / "config.yaml"), "--output", str(folder), "--plain-detectron2"])
        assert f"for plain Detectron2: {folder}" in capsys.readouterr().out
        assert "Classes, in order: bright, dark." in (folder / "config.yaml").read_text()
    command = [*quick_python(), "-c", PREDICT, str(image_file), *map(str, folders)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for ours, folder in zip(before, folders, strict=True):
        assert len(ours) > 10
        assert np.ptp(ours.scores) > 0.2
        assert np.ptp(ours.masks) > 0.8
        theirs = np.load(folder / "found.npz")
        for name in ("boxes", "scores", "classes", "masks"):
            np.testing.assert_allclose(getattr(ours, name), theirs[name], rtol=0, atol=1e-4, err_msg=name)
        # Pixels of which the interpolated probability is ½ within rounding may fall on either side.
        pasted = np.array([crop.to_full(HEIGHT, WIDTH) for crop in ours.crops()])
        assert (pasted != theirs["pasted"]).mean() < 1e-4
    again = CellSegmenter.from_pretrained(folders[1], "cpu")  # such a folder serves this package, too
    assert np.array_equal(again.detect(image).scores, before[1].scores)
    assert again.class_names == ["class 1", "class 2"], "Detectron2 has no key for names"


# What Detectron2's mask_rcnn_R_50_FPN_3x.yaml says of the network.
ZOO = """\
MODEL:
  MASK_ON: True
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS: {OUT_FEATURES: [res2, res3, res4, res5]}
  FPN: {IN_FEATURES: [res2, res3, res4, res5]}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6]}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5]}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 2, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 4, POOLER_RESOLUTION: 14}
"""
RECIPES = ["mask_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN_GN_scratch", "cascade_mask_rcnn_R_50_FPN", "report_baseline"]


def shapes(cfg):
    """Names and shapes of all weights, without making them."""
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_model(cfg).state_dict().items()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_networks_are_those_of_stock_detectron2(repository, recipe):
    cfg = load_config(repository / f"configs/sartorius/{recipe}.yaml", ["MODEL.DEVICE", "cpu"])
    stock = get_cfg()
    stock.merge_from_other_cfg(CfgNode(plain_settings(cfg)))
    stock.DATALOADER.NUM_WORKERS = 0
    assert shapes(stock) == shapes(cfg)


def test_names_of_weights_are_those_of_the_model_zoo(repository):
    zoo = get_cfg()
    zoo.merge_from_other_cfg(CfgNode(yaml.safe_load(ZOO)))
    ours = shapes(load_config(repository / "configs/sartorius/mask_rcnn_R_50_FPN.yaml", ["MODEL.DEVICE", "cpu"]))
    theirs = shapes(zoo)
    assert ours.keys() == theirs.keys()
    other = {name for name in ours if ours[name] != theirs[name]}
    # 80 classes there, and 3 anchors a place.
    per_class = ("box_predictor.", "mask_head.predictor.")
    assert all(
        name.startswith("proposal_generator.rpn_head.") or any(part in name for part in per_class) for name in other
    )
    assert len(other) < 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.BACKBONE.NAME", "build_compact_resnet_fpn_backbone"], r"BACKBONE.NAME is build_compact.*lacks"),
        (["INPUT.INTENSITY", "percentile"], "cannot stretch images"),
        (["INPUT.ZOOM_TEST", "1.6"], r"ZOOM_TEST is 1.6.*N 1.6 times"),
    ],
)
def test_what_it_cannot_follow_is_refused(config_file, options, message):
    with pytest.raises(CellSegError, match=message):
        check_plain(load_config(config_file, ["MODEL.DEVICE", "cpu", *options]))


def test_other_weights_are_neither_mixed_nor_mistaken(config_file, tmp_path):
    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu"])
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(CellSegError, match="does not fit the configuration"):
        export_plain_detectron2(cfg, tmp_path / "other.pth", tmp_path / "plain")
    assert not (tmp_path / "plain").exists()
    (tmp_path / "model_best.pth").touch()
    with pytest.raises(CellSegError, match=r"holds model_best.pth, which is of no earlier export"):
        export_plain_detectron2(cfg, tmp_path / "other.pth", tmp_path)


def test_there_is_no_post_processing_to_export(config_file, capsys):
    with pytest.raises(SystemExit):
        main(["--config-file", str(config_file), "--output", "o", "--plain-detectron2", "--postprocess", "p.yaml"])
    assert "no such step" in capsys.readouterr().err
