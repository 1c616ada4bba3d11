"""Parts of stock Detectron2 in the place of this project's own, as its users put them there."""

import json

import cv2
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultPredictor
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.structures import Boxes, Instances

from cellseg_d2.config import add_cellseg_config, default_config, load_config
from cellseg_d2.data.dataset_mapper import CellDatasetMapper
from cellseg_d2.detections.instances import UnpastedMasks
from cellseg_d2.engine.run_record import write_run_files
from cellseg_d2.engine.setup import prepare_training
from cellseg_d2.engine.trainer import CellTrainer
from cellseg_d2.errors import CellSegError
from tests.discs import write_disc_dataset


@pytest.fixture(scope="module")
def polygons(tmp_path_factory):
    """The discs as squares that are drawn as polygons, registered as users of Detectron2 register datasets."""
    folder = write_disc_dataset(tmp_path_factory.mktemp("stock"))
    names = {}
    for part in ("train", "val"):
        content = json.loads((folder / f"instances_{part}.json").read_text())
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        path = folder / f"squares_{part}.json"
        path.write_text(json.dumps(content))
        names[part] = f"squares_{part}"
        register_coco_instances(names[part], {}, str(path), str(folder / content["info"]["image_root"]))
    yield names
    for name in names.values():
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)


@pytest.fixture
def config(repository, polygons, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def make(*opts):
        data = ("DATASETS.TRAIN", f"('{polygons['train']}',)", "DATASETS.TEST", f"('{polygons['val']}',)")
        # Stock mappers read colours.
        opts = ("MODEL.PIXEL_MEAN", [128.0] * 3, "MODEL.PIXEL_STD", [11.58] * 3, *opts)
        opts = ("OUTPUT_DIR", tmp_path / "run", "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, *data, *opts)
        return prepare_training(load_config(repository / "configs/quickstart/instant_test.yaml", list(map(str, opts))))

    return make


class StockTrainer(CellTrainer):
    """With Detectron2's mapper, loader and evaluator."""

    @classmethod
    def build_train_loader(cls, cfg):
        return build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR)


def test_a_training_with_stock_loader_mapper_and_evaluator(config, no_curves, tmp_path, caplog):
    cfg = config("TEST.BEST_METRIC", "segm/AP", "SOLVER.CHECKPOINT_PERIOD", 1)
    trainer = StockTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    results = json.loads((tmp_path / "run/coco_instances_results.json").read_text())
    assert results
    assert all("counts" in result["segmentation"] for result in results)
    assert "starts again" not in caplog.text

    trainer.checkpointer.tag_last_checkpoint("model_0000000.pth")
    again = StockTrainer(cfg)
    again.resume_or_load(resume=True)
    again.train()
    assert "the data loader of StockTrainer starts again" in caplog.text


def test_the_stock_evaluator_sees_the_masks_of_the_stock_model(config):
    """Masks on grids are pasted for it one by one, to the same pixels."""
    cfg = config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    torch.manual_seed(0)
    model = CellTrainer.build_model(cfg).eval()
    entries = DatasetCatalog.get(cfg.DATASETS.TEST[0])
    loader = build_detection_test_loader(entries, mapper=CellDatasetMapper(cfg, is_train=False))
    predictions = []
    for shown in (model, UnpastedMasks(model)):
        evaluator = COCOEvaluator(cfg.DATASETS.TEST[0], output_dir=None)
        inference_on_dataset(shown, loader, evaluator)
        predictions.append(evaluator._predictions)
    assert predictions[0] == predictions[1]
    assert len(predictions[0][0]["instances"]) > 10


def test_polygons_are_trained_on_and_scored_as_they_are_drawn(config, polygons, tmp_path):
    cfg = config("INPUT.AUGMENTATIONS", "[]")
    cells = max((entry["annotations"] for entry in DatasetCatalog.get(polygons["train"])), key=len)
    entry = next(e for e in DatasetCatalog.get(polygons["train"]) if e["annotations"] == cells)
    instances = CellDatasetMapper(cfg, is_train=True)(entry)["instances"]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in cells)]
    assert instances.gt_boxes.tensor.tolist() == boxes
    assert len(boxes) > 2

    evaluator = CellTrainer.build_evaluator(cfg, polygons["val"])
    evaluator.reset()
    for image in DatasetCatalog.get(polygons["val"]):
        boxes = [[int(v) for v in (x, y, x + w, y + h)] for x, y, w, h in (a["bbox"] for a in image["annotations"])]
        masks = torch.zeros((len(boxes), image["height"], image["width"]), dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        found = Instances(
            (image["height"], image["width"]),
            pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
            scores=torch.ones(len(boxes)),
            pred_classes=torch.tensor([a["category_id"] for a in image["annotations"]], dtype=torch.long),
            pred_masks=masks,
        )
        evaluator.process([image], [{"instances": found}])
    assert evaluator.evaluate()["competition"]["mean"] > 0.95  # squares that touch or overlap lose pixels


def test_a_cell_without_a_mask_is_named(config, polygons):
    entry = next(e for e in DatasetCatalog.get(polygons["train"]) if e["annotations"])
    entry = {**entry, "annotations": [{**entry["annotations"][0], "segmentation": []}]}
    with pytest.raises(CellSegError, match=r"train\d\.png: a cell cannot be trained on: it has no segmentation"):
        CellDatasetMapper(config(), is_train=True)(entry)


def test_a_run_s_configuration_and_weights_work_in_stock_detectron2(config, no_curves, polygons, tmp_path):
    """As docs/extending.md says."""
    trainer = CellTrainer(cfg := config("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0))
    trainer.resume_or_load(resume=False)
    trainer.train()
    write_run_files(cfg, (), "run.json")

    stock = get_cfg()
    add_cellseg_config(stock)
    stock.merge_from_file(str(tmp_path / "run/config.yaml"))
    stock.MODEL.WEIGHTS = str(tmp_path / "run/model_final.pth")
    predictor = DefaultPredictor(stock)
    trained = trainer.model.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in predictor.model.state_dict().items())
    entry = DatasetCatalog.get(polygons["val"])[0]
    found = predictor(cv2.imread(entry["file_name"]))["instances"]
    assert found.pred_masks.shape == (len(found), entry["height"], entry["width"])
    assert len(found) > 10


def test_the_stock_mapper_takes_the_default_keys():
    cfg = default_config()
    assert DatasetMapper(cfg, is_train=True).augmentations is not None


def test_a_lazy_config_is_refused_with_a_word(tmp_path):
    path = tmp_path / "mask_rcnn.py"
    path.write_text("raise SystemExit('run')")
    with pytest.raises(CellSegError, match=r"mask_rcnn\.py is a LazyConfig of Detectron2; this reads YAML"):
        load_config(path)
