"""Predictions of drawn cells for a report."""

import cv2
import numpy as np
import pytest

from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.competition import score_image, summarize
from cellseg_d2.visualization.report.cells import gather_cells
from tests.competition_files import write_predicted, write_train_csv
from tests.discs import disc_image

SIZE = 96


@pytest.fixture(scope="session")
def discs(tmp_path_factory):
    """Three images of five discs and one without: predicted exactly, shrunken, half of them, and one that is not."""
    folder = tmp_path_factory.mktemp("discs")
    generator = np.random.default_rng(3)
    true, predicted, types = {}, {}, {"exact": "cort", "small": "astro", "half": "astro", "none": ""}
    (folder / "images").mkdir()
    for name in types:
        image, crops = disc_image(generator, SIZE, 0 if name == "none" else 5, len(name) % 2)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), image)
        true[name] = crops
    predicted["exact"] = true["exact"]
    predicted["small"] = [eroded(crop) for crop in true["small"]]
    predicted["half"] = [*true["half"][:2], MaskCrop(0, 0, np.ones((2, 3), bool))]
    predicted["none"] = [MaskCrop(40, 40, np.ones((5, 5), bool))]
    write_train_csv(folder / "train.csv", true, SIZE, SIZE, types)
    write_predicted(folder / "out" / "submission.csv", predicted, SIZE)
    scores = {
        name: score_image(*([crop_to_coco(crop, SIZE, SIZE) for crop in side[name]] for side in (predicted, true)))
        for name in types
    }
    score = summarize(scores, {name: kind for name, kind in types.items() if kind})
    return folder, true, predicted, score


def eroded(crop):
    padded = np.pad(crop.mask, 1).astype(np.uint8)
    return MaskCrop(crop.top - 1, crop.left - 1, cv2.erode(padded, np.ones((3, 3), np.uint8)) > 0).tight()


@pytest.fixture(scope="session")
def scored(discs):
    folder, *_ = discs
    return gather_cells(folder / "out", folder / "train.csv", [folder / "images"])
