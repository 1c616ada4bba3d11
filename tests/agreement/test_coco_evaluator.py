"""Stock Detectron2's COCO evaluation of the same predictions gives the same numbers as this project's evaluators."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from cellseg_d2.evaluation.coco_protocol import COCOProtocolEvaluator
from cellseg_d2.masks.crop import coco_to_crop
from tests.discs import CLASSES, write_disc_dataset

SIZE = 96
NAME = "agreement_val"


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A registered dataset with every way in which cells can lie, and its JSON; its last image has no cells."""
    folder = write_disc_dataset(tmp_path_factory.mktemp("agreement"), images=7, size=SIZE, count=8)
    path = folder / "instances_val.json"
    register_coco_instances(NAME, {}, str(path), str(folder / "images"))
    MetadataCatalog.get(NAME).set(
        thing_classes=list(CLASSES), thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(CLASSES))}
    )
    yield json.loads(path.read_text())
    from detectron2.data import DatasetCatalog

    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def predictions(truth, *, doubles, seed):
    """What a detector might say: the true cells shifted, some missed, some of the wrong class, and ``doubles`` of each.

    Returns:
        The evaluators' inputs and outputs, an image at a time.
    """
    generator = np.random.default_rng(seed)
    for image in truth["images"]:
        masks, classes = [], []
        for annotation in truth["annotations"]:
            if annotation["image_id"] != image["id"]:
                continue
            mask = coco_to_crop(annotation["segmentation"]).to_full(SIZE, SIZE)
            for _ in range(generator.integers(0, doubles + 1)):
                masks.append(np.roll(mask, generator.integers(-3, 4, 2), axis=(0, 1)))
                right = annotation["category_id"] - 1
                classes.append(right if generator.random() < 0.8 else 1 - right)
        masks.append(np.ones((SIZE, SIZE), bool))  # and one that is nothing
        classes.append(0)
        pixels = [np.argwhere(mask) for mask in masks]
        boxes = np.array([[*own.min(axis=0)[::-1], *(own.max(axis=0)[::-1] + 1)] for own in pixels], np.float32)
        instances = Instances(
            (SIZE, SIZE),
            # Boxes of a network are near its masks, and not theirs.
            pred_boxes=Boxes(torch.from_numpy(boxes + generator.normal(0, 0.5, boxes.shape).astype(np.float32))),
            # In steps, so that ties occur: their order must be the same, too.
            scores=torch.from_numpy(generator.integers(1, 50, len(masks)).astype(np.float32) / 50),
            pred_classes=torch.tensor(classes),
            pred_masks=torch.from_numpy(np.array(masks)),
        )
        yield [{"image_id": image["id"]}], [{"instances": instances}]


def evaluated(evaluator, pairs):
    evaluator.reset()
    for inputs, outputs in pairs:
        evaluator.process(inputs, outputs)
    return evaluator.evaluate()


@pytest.mark.parametrize(
    ("protocol", "max_detections", "doubles"), [("coco", 100, 3), ("coco", 100, 40), ("livecell", 2000, 40)]
)
def test_both_evaluators_give_the_same_numbers(truth, tmp_path, protocol, max_detections, doubles):
    pairs = list(predictions(truth, doubles=doubles, seed=doubles))
    most = max(len(outputs[0]["instances"]) for _, outputs in pairs)
    assert (most > 100) == (doubles == 40), "some images must exceed COCO's limit of 100"
    stock = evaluated(
        COCOEvaluator(
            NAME, ("bbox", "segm"), False, str(tmp_path), max_dets_per_image=max_detections, use_fast_impl=False
        ),
        pairs,
    )
    ours = evaluated(COCOProtocolEvaluator(NAME, protocol), pairs)
    compared = 0
    for kind in ("bbox", "segm"):
        own = ours[kind if protocol == "coco" else f"livecell_{kind}"]
        assert 5 < own["AP"] < 95
        for name, value in stock[kind].items():
            if protocol == "livecell" and name in ("APs", "APm", "APl"):
                continue  # LIVECell has other bounds for small, medium and large
            assert math.isclose(own[name], value, abs_tol=1e-6) or (math.isnan(own[name]) and math.isnan(value)), name
            compared += 1
    assert compared == 2 * (8 if protocol == "coco" else 5)
