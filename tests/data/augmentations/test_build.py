"""Augmentations by name, set up from the configuration."""

import detectron2.data.transforms as T
import numpy as np
import pytest
from detectron2.config import get_cfg

from cellseg_d2.config import add_cellseg_config
from cellseg_d2.data.augmentations.build import (
    build_test_augmentations,
    build_train_augmentations,
)
from cellseg_d2.data.augmentations.crops import RotateZoomCrop, Rotation
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.errors import CellSegError
from tests.data.augmentations.scenes import assert_agreement, disc_scene


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_cellseg_config(cfg)
    return cfg


def test_every_name_can_be_built_and_applied(cfg):
    scene = disc_scene()
    cfg.INPUT.ROTATION.ANGLE = [-180.0, 180.0]
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (200,), 300
    for name in AUGMENTATION_REGISTRY:
        cfg.INPUT.AUGMENTATIONS = [name]
        (cfg.INPUT[name.upper()] if "PROBABILITY" in cfg.INPUT.get(name.upper(), {}) else {})["PROBABILITY"] = 1.0
        augmentations = build_train_augmentations(cfg)
        assert augmentations, name
        aug_input = T.AugInput(scene.image, boxes=scene.boxes.copy())
        transforms = T.AugmentationList(augmentations)(aug_input)
        assert aug_input.image.dtype == np.uint8
        assert transforms.apply_segmentation(scene.labels).shape == aug_input.image.shape


def test_a_whole_chain_keeps_image_and_masks_together(cfg):
    scene = disc_scene()
    cfg.INPUT.AUGMENTATIONS = ["scale_jitter", "elastic", "rotate_zoom_crop", "quarter_turn", "flip"]
    cfg.INPUT.AUGMENTATIONS += ["vertical_flip", "cell_crop"]
    cfg.INPUT.CELL_CROP.SIZE = [150, 150]
    chain = T.AugmentationList(build_train_augmentations(cfg))
    for seed in range(5):
        np.random.seed(seed)  # noqa: NPY002
        aug_input = T.AugInput(scene.image, boxes=scene.boxes.copy())
        transforms = chain(aug_input)
        assert aug_input.image.shape == (150, 150)
        assert_agreement(aug_input.image, transforms.apply_segmentation(scene.labels), steps=2)


def test_values_reach_the_augmentation(cfg):
    cfg.INPUT.AUGMENTATIONS = ["rotate_zoom_crop", "rotation"]
    cfg.INPUT.ROTATE_ZOOM_CROP.SIZE = [256, 320]
    cfg.INPUT.ROTATE_ZOOM_CROP.OUTSIDE = "background"
    cfg.INPUT.ROTATION.ANGLE = [-30, 30]
    crop, rotation = build_train_augmentations(cfg)
    assert isinstance(crop, RotateZoomCrop)
    assert (crop.size, crop.zoom, crop.outside) == ((256, 320), (1.0, 1.7), "background")
    assert isinstance(rotation, Rotation)
    assert rotation.angle == (-30, 30)


def test_nothing_is_added_where_nothing_can_happen(cfg):
    cfg.INPUT.AUGMENTATIONS = ["rotation", "noise"]
    cfg.INPUT.NOISE.PROBABILITY = 0.0
    assert build_train_augmentations(cfg) == []


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("rotate_zoom_crop", "ROTATE_ZOOM_CROP.ZOOM", [0.0, 1.0], "two ascending numbers above 0"),
        ("rotate_zoom_crop", "ROTATE_ZOOM_CROP.ANGLE", [10.0, -10.0], "two ascending numbers$"),
        ("rotate_zoom_crop", "ROTATE_ZOOM_CROP.OUTSIDE", "black", "reflect or background"),
        ("rotate_zoom_crop", "ROTATE_ZOOM_CROP.SIZE", [256], r"\[height, width\]"),
        ("rotate_zoom_crop", "ROTATE_ZOOM_CROP.CELL_PROBABILITY", 2.0, "from 0 to 1"),
        ("rotation", "ROTATION.MAX_ZOOM", 0.5, "of at least 1"),
        ("cell_crop", "CELL_CROP.SIZE", [-1, 5], r"\[height, width\]"),
        ("noise", "NOISE.READ", [-1.0, 1.0], "of at least 0"),
        ("noise", "NOISE.PROBABILITY", 1.5, "from 0 to 1"),
        ("focus", "FOCUS.BLUR", ["a", "b"], "two ascending numbers"),
    ],
)
def test_bad_values_are_told_by_their_key(cfg, name, key, value, message):
    node = cfg.INPUT
    *parts, last = key.split(".")
    for part in parts:
        node = node[part]
    node[last] = value
    cfg.INPUT.AUGMENTATIONS = [name]
    with pytest.raises(CellSegError, match=f"^INPUT.{key} is .*{message}"):
        build_train_augmentations(cfg)


def test_unknown_names_are_told_with_the_known_ones(cfg):
    cfg.INPUT.AUGMENTATIONS = ["spin"]
    with pytest.raises(CellSegError, match=r"spin.*brightness_contrast.*rotate_zoom_crop"):
        build_train_augmentations(cfg)


def test_prediction_resizes_by_a_factor_or_to_a_short_side(cfg):
    def resized(height, width):
        aug_input = T.AugInput(np.zeros((height, width), np.uint8))
        T.AugmentationList(build_test_augmentations(cfg))(aug_input)
        return aug_input.image.shape

    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 80, 1000
    assert resized(40, 60) == (80, 120)
    cfg.INPUT.ZOOM_TEST = 1.5
    assert resized(40, 60) == (60, 90)
    assert resized(1, 1) == (2, 2)
    cfg.INPUT.ZOOM_TEST = -1.0
    with pytest.raises(CellSegError, match="ZOOM_TEST"):
        build_test_augmentations(cfg)
