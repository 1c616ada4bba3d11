"""A network with a dense branch as users have it: exported, in views and tiles, in an ensemble, tuned."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cellseg_d2.detections.saved import load_detections, save_detections
from cellseg_d2.inference.ensemble import Ensemble
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.tta import make_views
from cellseg_d2.masks.crop import coco_to_crop
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.tuning_image import ImageTrials
from cellseg_d2.weights.model_folder import export_model
from tests.dense_discs import batch, configuration, disc_entries, trained

PARAMS = PostprocessParams(score_thresholds=(0.25,), min_areas=(20,), ranking="box")


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return disc_entries(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def folder(entries, tmp_path_factory):
    """An exported model without boxes that has learnt the discs."""
    cfg = configuration("DenseSegmenter", "MODEL.DENSE.MIN_PIXELS", "4", "MODEL.CLASS_NAMES", "['bright', 'dark']")
    cfg.TEST.POSTPROCESS.update(PARAMS.to_config())
    network, _ = trained(cfg, batch(cfg, entries), 120)
    folder = tmp_path_factory.mktemp("model")
    torch.save({"model": network.state_dict()}, folder / "model_final.pth")
    return export_model(cfg, folder / "model_final.pth", folder / "exported")


@pytest.fixture(scope="module")
def segmenter(folder):
    return CellSegmenter.from_pretrained(folder, "cpu")


def image_of(entry):
    return cv2.imread(entry["file_name"], cv2.IMREAD_GRAYSCALE)


def best_ious(crops, entry):
    """Of each true cell with the one found that fits it best."""
    shape = entry["height"], entry["width"]
    found = [crop.to_full(*shape) for crop in crops]
    truth = [coco_to_crop(annotation["segmentation"]).to_full(*shape) for annotation in entry["annotations"]]
    return [max((t & f).sum() / (t | f).sum() for f in found) for t in truth]


def test_an_exported_model_finds_the_discs(segmenter, entries):
    for entry in entries:
        cells = segmenter.segment(image_of(entry))
        assert len(cells) == len(entry["annotations"])
        assert min(best_ious(cells.crops, entry), default=1) > 0.7
        assert set(cells.classes.tolist()) == {annotation["category_id"] for annotation in entry["annotations"]}


def test_views_are_brought_back(segmenter, entries):
    """Each view's cells are those of the turned image, turned back; a field that was not turned would tear them."""
    entry = entries[0]
    image = image_of(entry)
    for view in make_views():
        one = CellSegmenter.__new__(CellSegmenter)
        one.__dict__.update(segmenter.__dict__, views=[view])
        cells, turned = one.segment(image), segmenter.segment(view.apply(image))
        back = view.transform(*image.shape).inverse()
        expected = [back.apply_image(crop.to_full(*image.shape).astype(np.uint8)).astype(bool) for crop in turned.crops]
        found = [crop.to_full(*image.shape) for crop in cells.crops]
        # The network has seen no turned image in training, and may miss a disc of one.
        assert len(found) == len(expected) >= len(entry["annotations"]) - 2, view
        for mask in found:
            assert max((mask & own).sum() / (mask | own).sum() for own in expected) > 0.99, view
        assert np.mean(sorted(best_ious(cells.crops, entry))[2:]) > 0.7, view
    assert len(segmenter.segment(image)) == len(entry["annotations"])


def test_tiles_of_a_larger_image(segmenter, entries):
    """Six copies of an image, looked at in windows that cut them."""
    entry = entries[0]
    image = np.tile(image_of(entry), (2, 3))
    cells = segmenter.segment(image, tile=128, overlap=48)
    assert len(cells) == pytest.approx(6 * len(entry["annotations"]), abs=3)  # discs at a seam of copies may touch


def test_an_ensemble_of_equal_models_finds_what_one_finds(segmenter, entries):
    entry = entries[0]
    alone = segmenter.detect(image_of(entry))
    both = Ensemble([segmenter, segmenter]).detect(image_of(entry))
    assert both.scores == pytest.approx(alone.scores, abs=1e-6)
    assert both.masks == pytest.approx(alone.masks, abs=1e-5)


def test_detections_are_saved_and_tuned(segmenter, entries, tmp_path):
    entry = entries[0]
    detections = segmenter.detect(image_of(entry))
    save_detections(tmp_path / "detections.npz", {"a": detections}, segmenter.class_names)
    loaded = load_detections(tmp_path / "detections.npz").images["a"]
    assert loaded.scores == pytest.approx(detections.scores)
    trials = ImageTrials(loaded, [coco_to_crop(annotation["segmentation"]) for annotation in entry["annotations"]])
    scores = [trials.score(replace(PARAMS, score_thresholds=(threshold,))) for threshold in (0.3, 0.99)]
    assert scores[0] > 0.5 > scores[1]
    looser = trials.score(replace(PARAMS, mask_thresholds=(0.9,)))
    assert looser != scores[0], "masks are probabilities"
