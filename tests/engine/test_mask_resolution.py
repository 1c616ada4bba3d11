"""Masks of 56 × 56 instead of 28 × 28: trained on, predicted and pasted."""

import numpy as np
import pytest
from detectron2.config import CfgNode

from cellseg_d2.config import load_config
from cellseg_d2.detections.detections import Detections
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.images.read import read_image
from cellseg_d2.inference.model import CellSegmenter
from tests.discs import write_disc_dataset


@pytest.fixture
def config(repository, tmp_path, monkeypatch, no_curves) -> CfgNode:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_disc_dataset(tmp_path, images=2)
    fine = load_config(repository / "configs/sartorius/mask_rcnn_R_50_FPN_mask56.yaml")
    opts = ["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", str(fine.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION)]
    opts += ["OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_ITER", "3", "DATASETS.TEST", "()"]
    opts += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    return prepare_training(load_config(repository / "configs/quickstart/instant_test.yaml", opts))


def test_fine_masks_are_trained_predicted_and_pasted(config, tmp_path):
    trainer = CellTrainer(config)
    trainer.resume_or_load(resume=False)
    trainer.train()
    segmenter = CellSegmenter.from_config(config, tmp_path / "run/model_final.pth")
    detections = segmenter.detect(read_image(tmp_path / "discs/images/val0.png"))
    assert len(detections) > 0
    assert detections.masks.shape[1:] == (56, 56)
    crops = detections.crops(0.3)
    assert len(crops) == len(detections)
    for crop, (x0, y0, x1, y1) in zip(crops, detections.boxes, strict=True):
        if crop.area:
            left, top, right, bottom = crop.box
            assert left >= x0 - 1
            assert top >= y0 - 1
            assert right <= x1 + 1
            assert bottom <= y1 + 1


def test_a_finer_grid_keeps_a_finer_shape():
    """Comb teeth of 6 px, asked for on grids of 28 and 56 cells over 168 px: only the finer one can tell them apart."""
    teeth = np.zeros((168, 168), bool)
    teeth[:, ::6] = teeth[:, 1::6] = teeth[:, 2::6] = True

    def round_trip(size):
        step = 168 // size
        grid = teeth.reshape(size, step, size, step).mean(axis=(1, 3)).astype(np.float32)
        box = np.array([[0, 0, 168, 168]], np.float32)
        [crop] = Detections(168, 168, box, np.ones(1), np.zeros(1, int), grid[None]).crops()
        mask = crop.to_full(168, 168)
        return (mask & teeth).sum() / (mask | teeth).sum()

    assert round_trip(56) > 0.9
    assert round_trip(28) < 0.6
