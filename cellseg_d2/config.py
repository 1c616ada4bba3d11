"""The keys that cellseg_d2 adds to Detectron2's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectron2.config import CfgNode as CN

if TYPE_CHECKING:
    from cellseg_d2.inference.postprocess import PostprocessParams


def add_cellseg_config(cfg: CN) -> None:
    """Add the project's keys, with their defaults, to ``detectron2.config.get_cfg()``."""
    # How intensities become the 0…255 that the network is normalised for. "auto": 8-bit images as they are, all
    # others stretched between percentiles. "percentile": always stretched.
    cfg.INPUT.INTENSITY = "auto"
    cfg.INPUT.INTENSITY_PERCENTILES = [0.1, 99.9]
    # Flips, besides Detectron2's "horizontal", "vertical" and "none": "both" flips along each axis with chance ½.
    cfg.INPUT.RANDOM_FLIP = "both"
    # Which augmentations training images go through, in this order (cellseg_d2/data/augmentations).
    cfg.INPUT.AUGMENTATIONS = ["resize", "crop", "rotation", "flip"]
    # Rotation by a random angle in degrees, drawn evenly from the range; [0, 0] is none.
    cfg.INPUT.ROTATION = CN()
    cfg.INPUT.ROTATION.ANGLE = [0.0, 0.0]
    # A cell that a transform leaves with fewer pixels than this is no longer trained on.
    cfg.INPUT.MIN_CELL_AREA = 10

    # "SGD" or "AdamW", both with the SOLVER's learning rate, weight decay and gradient clipping.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # The optimizer steps once every so many iterations, on the mean of their gradients: a batch of
    # IMS_PER_BATCH × GRADIENT_ACCUMULATION images in the memory of IMS_PER_BATCH.
    cfg.SOLVER.GRADIENT_ACCUMULATION = 1
    # Lengths in epochs of the training set instead of iterations. Where one is above 0 it replaces its neighbour in
    # iterations: MAX_ITER, STEPS, CHECKPOINT_PERIOD, TEST.EVAL_PERIOD.
    cfg.SOLVER.EPOCHS = 0
    cfg.SOLVER.STEP_EPOCHS = []
    cfg.SOLVER.CHECKPOINT_EPOCHS = 0
    cfg.TEST.EVAL_EPOCHS = 0

    # What is measured on DATASETS.TEST: any of "competition", "livecell", "coco".
    cfg.TEST.EVALUATORS = ["competition"]
    # The checkpoint with the highest value of this is kept as model_best.pth.
    cfg.TEST.BEST_METRIC = "competition/mean"

    # From detections to cells; the meaning of each is documented at PostprocessParams.
    cfg.TEST.POSTPROCESS = CN()
    cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS = [0.5]
    cfg.TEST.POSTPROCESS.MASK_THRESHOLD = 0.5
    cfg.TEST.POSTPROCESS.MIN_AREAS = [0]
    cfg.TEST.POSTPROCESS.OVERLAP_POLICY = "score"
    cfg.TEST.POSTPROCESS.VOTE = True

    # Names of the model's classes, in order. Training fills them in from the dataset and checks them where given.
    cfg.MODEL.CLASS_NAMES = []
    # Images without cells teach what a cell is not.
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.INPUT.MASK_FORMAT = "bitmask"
    # "auto" is CUDA where there is one, otherwise the CPU.
    cfg.MODEL.DEVICE = "auto"


def postprocess_params(cfg: CN) -> PostprocessParams:
    """``TEST.POSTPROCESS`` as the plain data class that the post-processing takes."""
    from cellseg_d2.inference.postprocess import PostprocessParams

    node = cfg.TEST.POSTPROCESS
    return PostprocessParams(
        score_thresholds=tuple(node.SCORE_THRESHOLDS),
        mask_threshold=node.MASK_THRESHOLD,
        min_areas=tuple(node.MIN_AREAS),
        overlap_policy=node.OVERLAP_POLICY,
        vote=node.VOTE,
    )
