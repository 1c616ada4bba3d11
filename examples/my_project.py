"""A backbone, an augmentation, an evaluator and an output format of one's own; docs/extending.md explains each.

cellseg-d2 train-net --import examples/my_project.py --config-file configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml \
    MODEL.BACKBONE.NAME build_plain_fpn_backbone TEST.EVALUATORS "['competition','counts']" \
    INPUT.AUGMENTATIONS "['rotate_zoom_crop','flip','scan_lines']" OUTPUT_DIR output/mine
cellseg-d2 infer --import examples/my_project.py --config-file output/mine/config.yaml \
    --input images --output out --save centres
"""

import detectron2.data.transforms as T
import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.utils import comm
from torch import nn

from cellseg_d2.data.augmentations.random_draws import uniform
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.settings import interval, sometimes
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.export.formats import FORMATS
from cellseg_d2.io.atomic import write_text_atomic


class PlainNet(Backbone):
    """A convolution a stage, at strides of 4, 8, 16 and 32 pixels."""

    def __init__(self, channels, width):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 7, stride=2, padding=3)
        for stage in range(2, 6):
            layers = (
                nn.Conv2d(width, width, 3, 2, 1),
                nn.GroupNorm(4, width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1),
            )
            self.add_module(f"res{stage}", nn.Sequential(*layers))
        self._shapes = {f"res{stage}": ShapeSpec(channels=width, stride=2**stage) for stage in range(2, 6)}

    def forward(self, x):
        x, found = self.stem(x), {}
        for name in self._shapes:
            found[name] = x = self.get_submodule(name)(x)
        return found

    def output_shape(self):
        return self._shapes


@BACKBONE_REGISTRY.register()
def build_plain_fpn_backbone(cfg, input_shape):
    network = PlainNet(input_shape.channels, cfg.MODEL.RESNETS.STEM_OUT_CHANNELS)
    return FPN(network, cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.FPN.OUT_CHANNELS, top_block=LastLevelMaxPool())


class ScanLines(T.Augmentation):
    def __init__(self, strength):
        super().__init__()
        self._init(locals())

    def get_transform(self, image):
        lines = uniform(-1, 1, (len(image), 1)) * uniform(*self.strength)
        return T.ColorTransform(lambda img: np.clip(img + lines, 0, 255).astype(np.uint8))


@AUGMENTATION_REGISTRY.register("scan_lines", defaults={"PROBABILITY": 0.5, "STRENGTH": [0.0, 8.0]})
def scan_lines(cfg):
    """each row brighter or darker, by up to ``STRENGTH`` grey levels"""
    return sometimes(cfg, "SCAN_LINES", ScanLines(interval(cfg, "SCAN_LINES.STRENGTH", low=0)))


class CountEvaluator(DatasetEvaluator):
    def __init__(self, dataset_name):
        self._true = {entry["image_id"]: len(entry["annotations"]) for entry in DatasetCatalog.get(dataset_name)}

    def reset(self):
        self._errors = []

    def process(self, inputs, outputs):
        for image, output in zip(inputs, outputs, strict=True):
            self._errors.append(abs(len(output["cells"]) - self._true[image["image_id"]]))

    def evaluate(self):
        errors = [error for part in comm.gather(self._errors) for error in part]  # of all processes, in the first
        return {"counts": {"mean_error": float(np.mean(errors))}} if comm.is_main_process() else None


@EVALUATOR_REGISTRY.register("counts", class_blind=True)
def counts(cfg, dataset_name, output_dir):
    """by how many cells the number of an image's cells is off, on average"""
    return CountEvaluator(dataset_name)


@FORMATS.register("centres", suffix="_centres.csv")
def write_centres(path, segmentation):
    """x and y of the middle of each cell's box, in pixels (CSV)"""
    rows = [f"{(x0 + x1) / 2:g},{(y0 + y1) / 2:g}\n" for x0, y0, x1, y1 in segmentation.boxes]
    write_text_atomic(path, "x,y\n" + "".join(rows))
