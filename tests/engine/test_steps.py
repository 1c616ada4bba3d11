"""configs/steps leads from the report's recipe to the project's, one change a file, with one budget."""

import pytest

from cellseg_d2.config import load_config


def flat(node, prefix=""):
    values = {}
    for key, value in node.items():
        values |= flat(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: value}
    return values


def differing(repository, one, other):
    one, other = (flat(load_config(repository / "configs" / name, ["MODEL.DEVICE", "cpu"])) for name in (one, other))
    return {key for key in one if one[key] != other[key]} - {"OUTPUT_DIR"}


def test_they_begin_with_the_report_s_recipe_but_for_its_length(repository):
    changed = differing(repository, "sartorius/report_baseline_R_18_FPN_GN.yaml", "steps/0_report.yaml")
    length = {"SOLVER.EPOCHS", "SOLVER.MAX_ITER", "SOLVER.CHECKPOINT_EPOCHS", "SOLVER.CHECKPOINT_PERIOD"}
    assert changed == length | {"TEST.EVAL_EPOCHS", "TEST.SAVE_DETECTIONS"}


def test_they_end_at_the_fine_tuning_but_for_its_weights_and_length(repository):
    changed = differing(repository, "steps/5_intensity.yaml", "finetune/mask_rcnn_R_18_FPN_GN.yaml")
    unused_by_the_cosine_schedule = {"SOLVER.GAMMA", "SOLVER.STEPS"}
    assert changed - unused_by_the_cosine_schedule == {
        "MODEL.META_ARCHITECTURE",
        "MODEL.WEIGHTS",
        "INPUT.ROTATE_ZOOM_CROP.ZOOM",
        "SOLVER.BASE_LR",
        "SOLVER.MAX_ITER",
        "SOLVER.CHECKPOINT_PERIOD",
        "DATASETS.TRAIN",
        "DATASETS.TEST",
        "TEST.POSTPROCESS.MASK_OFFSET",
    }


@pytest.mark.parametrize("name", ["2_crops", "3_anchors", "4_dense", "5_intensity", "6_mask56"])
def test_all_see_as_many_pixels(repository, name):
    cfg = load_config(repository / f"configs/steps/{name}.yaml", ["MODEL.DEVICE", "cpu"])
    height, width = cfg.INPUT.ROTATE_ZOOM_CROP.SIZE
    report = load_config(repository / "configs/steps/0_report.yaml", ["MODEL.DEVICE", "cpu"])
    whole = report.SOLVER.MAX_ITER * report.SOLVER.IMS_PER_BATCH * 800 * 1083
    assert cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH * height * width == pytest.approx(whole, rel=0.01)
