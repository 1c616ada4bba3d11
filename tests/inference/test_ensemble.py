"""Several models, and several views of one, as a user's segmenter."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from cellseg_d2.config import load_config
from cellseg_d2.detections.fusion import FusionParams
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.ensemble import Ensemble, build_segmenter
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.inference.tta import View, make_views
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.predictions.submission import read_submission, validate_submission
from tests.detections.soft_discs import detections_of
from tests.discs import CLASSES, disc_image

IMAGE = np.zeros((100, 120), np.uint8)


class Fixed(Segmenter):
    """Sees the same discs in every image, in each of its views."""

    def __init__(self, discs, scores, classes, names=CLASSES, views=1, params=None):
        self.found = detections_of(discs, scores, *IMAGE.shape, classes)
        self.class_names = list(names)
        self.params = params or PostprocessParams(vote=False)
        self.fusion = FusionParams(absence=1)
        self.views = views

    def detect_views(self, image, scale=1.0):
        return [self.found] * self.views, [1.0] * self.views


def test_members_count_the_same_however_often_they_look():
    there, absent = [(30, 30, 8)], []
    once, often = Fixed(there, [0.8], [0]), Fixed(absent, [], [], views=8)
    assert Ensemble([once, often]).detect(IMAGE).scores == pytest.approx([0.4])
    assert Ensemble([once, often], weights=[3, 1]).detect(IMAGE).scores == pytest.approx([0.6])


def test_an_ensemble_of_equal_models_finds_what_one_finds():
    discs, scores = [(30, 30, 8), (60, 50, 10), (90, 80, 6)], [0.9, 0.8, 0.7]
    one = Fixed(discs, scores, [0, 1, 0])
    alone, together = one.segment(IMAGE), Ensemble([one] * 5).segment(IMAGE)
    assert together.classes.tolist() == alone.classes.tolist() == [0, 1, 0]
    for crop, expected in zip(together.crops, alone.crops, strict=True):
        assert np.array_equal(crop.to_full(*IMAGE.shape), expected.to_full(*IMAGE.shape))


def test_classes_are_matched_by_name():
    same = [(30, 30, 8)]
    members = [Fixed(same, [0.8], [0], ("bright", "dark")), Fixed(same, [0.6], [1], ("dark", "bright"))]
    ensemble = Ensemble(members)
    assert ensemble.class_names == ["bright", "dark"]
    found = ensemble.detect(IMAGE)
    assert found.classes.tolist() == [0]
    assert found.scores == pytest.approx([0.7])


def test_classes_mix_where_the_image_has_one_type():
    same = [(30, 30, 8)]
    ensemble = Ensemble([Fixed(same, [0.8], [0]), Fixed(same, [0.6], [1])])
    assert len(ensemble.detect(IMAGE)) == 2
    ensemble.params = PostprocessParams(vote=True)
    assert ensemble.detect(IMAGE).scores == pytest.approx([0.7])


def test_models_that_do_not_fit_together_are_refused():
    with pytest.raises(CellSegError, match="at least one model"):
        Ensemble([])
    one = Fixed([], [], [])
    with pytest.raises(CellSegError, match=r"the first has bright, dark and number 2 has cell"):
        Ensemble([one, Fixed([], [], [], ("cell",))])
    with pytest.raises(CellSegError, match="2 models need as many weights, not 1"):
        Ensemble([one, one], weights=[1.0])
    other = Fixed([], [], [])
    for name, value, key in (("scales", (0.5, 1.0), r"TEST\.SCALES"), ("scale_neighbors", 1, r"TEST\.SCALE_NEIGHBORS")):
        setattr(other, name, value)
        with pytest.raises(CellSegError, match=f"but {key} is .* give {key} for all of them"):
            Ensemble([one, other])
        setattr(one, name, value)
        assert getattr(Ensemble([one, other]), name) == value
    with pytest.raises(CellSegError, match="2 configurations for 3 weights files"):
        build_segmenter([None, None], ["a", "b", "c"])


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory, repository):
    """What two training runs leave, with random weights."""
    root = tmp_path_factory.mktemp("runs")
    for fold in range(2):
        (root / f"fold{fold}").mkdir()
        cfg = load_config(repository / "configs/quickstart/instant_test.yaml", ["MODEL.DEVICE", "cpu"])
        cfg.MODEL.CLASS_NAMES = list(CLASSES)
        cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS = [0.1]
        torch.manual_seed(fold)
        torch.save({"model": build_model(cfg).state_dict()}, root / f"fold{fold}" / "model_best.pth")
        (root / f"fold{fold}" / "config.yaml").write_text(cfg.dump())
    return [root / "fold0", root / "fold1"]


def load(folder, *opts):
    cfg = load_config(folder / "config.yaml", ["MODEL.DEVICE", "cpu", *opts])
    return CellSegmenter.from_config(cfg, folder / "model_best.pth")


def test_a_network_looks_in_all_directions_and_its_result_turns_with_the_image(run_folders):
    segmenter = load(run_folders[0], "TEST.TTA.ENABLED", "True")
    assert segmenter.views == make_views("both", True, [1.0])
    image = disc_image(np.random.default_rng(0), 96, 5, 0)[0][:64]
    turn = View(mirrored=True, turns=1)
    straight, turned = segmenter.detect(image), turn.restore(segmenter.detect(turn.apply(image)))
    assert len(straight) == len(turned) > 5
    i, j = (np.lexsort(np.round(d.boxes, 2).T) for d in (straight, turned))
    assert np.allclose(straight.boxes[i], turned.boxes[j], atol=1e-3)
    assert np.allclose(straight.scores[i], turned.scores[j], atol=1e-5)
    assert np.allclose(straight.masks[i], turned.masks[j], atol=1e-4)


def test_a_scale_changes_what_the_network_is_shown_and_not_where_its_boxes_are(run_folders):
    segmenter = load(run_folders[0])
    shapes = []
    segmenter._model.model.backbone.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[-2:])))
    image = disc_image(np.random.default_rng(0), 96, 5, 0)[0]
    segmenter.views = make_views("none", False, [1, 2])
    views, weights = segmenter.detect_views(image)
    assert shapes == [(96, 96), (192, 192)]
    assert weights == [1.0, 1.0]
    for found in views:
        assert (found.height, found.width) == (96, 96)
        assert len(found) > 0
        assert found.boxes.min() >= 0
        assert 48 < found.boxes.max() <= 96


def test_one_configuration_may_serve_all_weights(run_folders):
    cfg = load_config(run_folders[0] / "config.yaml", ["MODEL.DEVICE", "cpu"])
    weights = [folder / "model_best.pth" for folder in run_folders]
    ensemble = build_segmenter([cfg], weights)
    assert [type(member) for member in ensemble.members] == [CellSegmenter] * 2
    assert isinstance(build_segmenter([cfg], weights[:1]), CellSegmenter)


def test_the_tool_takes_several_models_and_looks_in_all_directions(run_folders, tmp_path):
    from cellseg_d2.cli import infer

    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), disc_image(np.random.default_rng(5), 96, 4, 0)[0])
    arguments = ["--tta", "--config-file", *(str(folder / "config.yaml") for folder in run_folders)]
    arguments += ["--input", str(tmp_path / "images"), "--output", str(tmp_path / "out"), "--save", "submission"]
    # Two random networks agree on nothing: only a low threshold leaves cells.
    arguments += ["--score-threshold", "0.01", "--device", "cpu"]
    assert infer.main(arguments) == 0
    submission = read_submission(tmp_path / "out/submission.csv")
    assert submission.keys() == {"a"}
    assert validate_submission(submission, (96, 96)) == []
    assert len(submission["a"]) > 0
