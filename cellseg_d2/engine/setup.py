"""Complete and check a configuration before training: data sets, length, classes, weights."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.proposal_generator import RPN
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager

from cellseg_d2.config import class_names
from cellseg_d2.data.catalog import has_ignored, require_datasets
from cellseg_d2.data.categories import (
    check_map_is_used,
    choose_classes,
    map_categories,
    repeat_factors,
    training_datasets,
)
from cellseg_d2.datasets.coco_file import is_cell
from cellseg_d2.engine.console import set_up_logging
from cellseg_d2.engine.run_record import CONFIG
from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.io.network import limited_silence
from cellseg_d2.io.outputs import check_outputs
from cellseg_d2.io.text import read_yaml
from cellseg_d2.modeling.blockwise_rpn import BlockwiseRPN
from cellseg_d2.modeling.timm_backbone import TIMM_BACKBONE
from cellseg_d2.postprocess.params import PER_CLASS, PostprocessParams
from cellseg_d2.weights import model_folder  # noqa: F401  registers cellseg://

logger = logging.getLogger(__name__)


def prepare_training(cfg: CfgNode, train: bool = True) -> CfgNode:
    """Register the datasets, turn epochs into iterations, and check what would otherwise fail later or silently.

    Args:
        cfg: result of :func:`load_config`; changed in place.
        train: False for evaluation only.
    """
    for name in cfg.TEST.EVALUATORS:
        EVALUATOR_REGISTRY.choose(name, "TEST.EVALUATORS")
    names = (*(training_datasets(cfg) if train else ()), *cfg.DATASETS.TEST)
    require_datasets(set(names))
    # Reading the JSON also sets the metadata.
    entries = {name: DatasetCatalog.get(name) for name in names}
    sizes = {name: len(own) for name, own in entries.items()}
    cells = {name: sum(is_cell(a) for entry in own for a in entry["annotations"]) for name, own in entries.items()}
    categories = {name: list(MetadataCatalog.get(name).thing_classes) for name in names}
    check_classes(cfg, categories)
    if train:
        settle_vote(cfg, {name: entries[name] for name in cfg.DATASETS.TRAIN}, categories)
    check_postprocess(cfg)
    check_cells(cfg, cells, train)
    if train:
        if not cfg.DATASETS.TRAIN:
            raise CellSegError("DATASETS.TRAIN is empty: name at least one dataset to train on")
        check_map_is_used(categories, cfg.DATASETS.CATEGORY_MAP)
        check_ignored(cfg, {name: entries[name] for name in cfg.DATASETS.TRAIN})
        factors = weigh_datasets(cfg)
        resolve_epochs(cfg, sum(factors[name] * sizes[name] for name in cfg.DATASETS.TRAIN))
        check_start(cfg)
    cfg.MODEL.WEIGHTS = require_weights(cfg.MODEL.WEIGHTS)
    return cfg


def check_start(cfg: CfgNode) -> None:
    """Refuse frozen norms where there are no weights to go with them."""
    if cfg.MODEL.WEIGHTS:
        return
    if cfg.MODEL.BACKBONE.NAME == TIMM_BACKBONE:
        if cfg.MODEL.TIMM.NORM == "FrozenBN" and not cfg.MODEL.TIMM.PRETRAINED:
            raise CellSegError(
                "training from scratch cannot work with FrozenBN, which is never trained: give MODEL.WEIGHTS or "
                "MODEL.TIMM.PRETRAINED, or set MODEL.TIMM.NORM to ''"
            )
    elif cfg.MODEL.RESNETS.NORM == "FrozenBN":
        raise CellSegError(
            "training from scratch cannot work with FrozenBN, which is never trained: "
            "set MODEL.RESNETS.NORM GN MODEL.BACKBONE.FREEZE_AT 0, or give MODEL.WEIGHTS"
        )


def weigh_datasets(cfg: CfgNode) -> dict[str, float]:
    """Apply ``DATASETS.TRAIN_REPEAT_FACTOR`` to the data loader; returns the factor of each training dataset."""
    factors = repeat_factors(cfg.DATASETS.TRAIN, cfg.DATASETS.TRAIN_REPEAT_FACTOR)
    if cfg.DATASETS.TRAIN_REPEAT_FACTOR:
        sampler = cfg.DATALOADER.SAMPLER_TRAIN
        if sampler not in ("TrainingSampler", "WeightedTrainingSampler", "WeightedCategoryTrainingSampler"):
            raise CellSegError(f"DATALOADER.SAMPLER_TRAIN {sampler} does not know DATASETS.TRAIN_REPEAT_FACTOR")
        if sampler == "TrainingSampler":
            cfg.DATALOADER.SAMPLER_TRAIN = "WeightedTrainingSampler"
    return factors


def resolve_epochs(cfg: CfgNode, num_images: float) -> None:
    """Convert ``SOLVER.EPOCHS`` and the other keys in epochs to iterations, given the size of the training set.

    An epoch is as many iterations as it takes to see ``num_images`` images, rounded up for the whole length.
    """
    per_epoch = num_images / (cfg.SOLVER.IMS_PER_BATCH * cfg.SOLVER.GRADIENT_ACCUMULATION)

    def iterations(epochs: int) -> int:
        return max(1, math.ceil(epochs * per_epoch))

    solver = cfg.SOLVER
    if solver.EPOCHS > 0:
        solver.MAX_ITER = iterations(solver.EPOCHS)
        # A warm-up that fills the run would never reach the learning rate asked for.
        solver.WARMUP_ITERS = min(solver.WARMUP_ITERS, solver.MAX_ITER // 4)
        if not solver.STEP_EPOCHS:
            solver.STEPS = tuple(step for step in solver.STEPS if step < solver.MAX_ITER)
    if solver.STEP_EPOCHS:
        solver.STEPS = tuple(iterations(epochs) for epochs in solver.STEP_EPOCHS)
    if solver.CHECKPOINT_EPOCHS > 0:
        solver.CHECKPOINT_PERIOD = iterations(solver.CHECKPOINT_EPOCHS)
    if cfg.TEST.EVAL_EPOCHS > 0:
        cfg.TEST.EVAL_PERIOD = iterations(cfg.TEST.EVAL_EPOCHS)


def check_classes(cfg: CfgNode, categories: Mapping[str, Sequence[str]]) -> None:
    """Refuse datasets whose categories are not the model's classes; note the names of the classes.

    Args:
        cfg: ``MODEL.CLASS_NAMES`` is filled in.
        categories: the datasets' own, by dataset.
    """
    if not categories:
        return
    classes = choose_classes(categories, cfg.DATASETS.CATEGORY_MAP, cfg.MODEL.CLASS_NAMES)
    if len(classes) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise CellSegError(
            f"there are {len(classes)} classes ({', '.join(classes)}) in {', '.join(categories)}, but the model is "
            f"set up for {cfg.MODEL.ROI_HEADS.NUM_CLASSES}: set MODEL.ROI_HEADS.NUM_CLASSES {len(classes)}"
            f"{_with_thresholds(cfg, len(classes))}, or make them one with DATASETS.CATEGORY_MAP \"[['*','cell']]\""
        )
    cfg.MODEL.CLASS_NAMES = classes


def _with_thresholds(cfg: CfgNode, classes: int) -> str:
    """What else is to be set for another number of classes, as the end of a sentence."""
    lists = [key for key in map(str.upper, PER_CLASS) if len(cfg.TEST.POSTPROCESS[key]) > 1]
    unfit = [f"TEST.POSTPROCESS.{key}" for key in lists if len(cfg.TEST.POSTPROCESS[key]) != classes]
    return f" and {', '.join(unfit)} to one value or {classes}" if unfit else ""


def check_ignored(cfg: CfgNode, entries: Mapping[str, Sequence[Mapping]]) -> None:
    """Refuse to train on regions in which nobody annotated with what would take them for background.

    Raises:
        CellSegError: names the key.
    """
    concerned = [name for name, own in entries.items() if any(map(has_ignored, own))]
    if not concerned:
        return
    said = f"{concerned[0]} has regions marked iscrowd, in which nobody annotated: to learn nothing from them, set"
    made = PROPOSAL_GENERATOR_REGISTRY.get(cfg.MODEL.PROPOSAL_GENERATOR.NAME)
    if issubclass(made, RPN) and not issubclass(made, BlockwiseRPN):
        raise CellSegError(f"{said} MODEL.PROPOSAL_GENERATOR.NAME BlockwiseRPN")
    if not cfg.INPUT.MASK_LAYERS:
        raise CellSegError(f"{said} INPUT.MASK_LAYERS True")


def settle_vote(
    cfg: CfgNode, entries: Mapping[str, Sequence[Mapping]], categories: Mapping[str, Sequence[str]]
) -> None:
    """Switch ``TEST.POSTPROCESS.VOTE`` off where images that are trained on hold cells of several classes: with it, all
    cells of such an image would be taken for one class.

    Args:
        cfg: changed in place.
        entries: the dataset dicts by dataset.
        categories: names of the categories by dataset.
    """
    if not cfg.TEST.POSTPROCESS.VOTE:
        return
    mixed = 0
    for name, own in entries.items():
        classes = map_categories(categories[name], cfg.DATASETS.CATEGORY_MAP)
        mixed += sum(len({classes[a["category_id"]] for a in entry["annotations"] if is_cell(a)}) > 1 for entry in own)
    if mixed:
        cfg.TEST.POSTPROCESS.VOTE = False
        logger.warning(
            "images of the training set with cells of several classes: %d; so TEST.POSTPROCESS.VOTE is switched off "
            "for this model, with which all cells of an image would take its commonest class",
            mixed,
        )


def check_postprocess(cfg: CfgNode) -> None:
    """Refuse thresholds that do not fit the model's classes: it would be trained, and could not predict.

    Raises:
        CellSegError: names the key.
    """
    try:
        PostprocessParams.from_config(cfg).check_classes(class_names(cfg))
    except CellSegError as error:
        raise CellSegError(f"TEST.POSTPROCESS does not fit the model: {error}") from None


def check_cells(cfg: CfgNode, cells: Mapping[str, int], train: bool) -> None:
    """Refuse to train without a single annotated cell, and warn of an evaluation without any.

    Args:
        cfg: names the datasets.
        cells: number of annotated cells by dataset.
        train: False for evaluation only.

    Raises:
        CellSegError: there is nothing to learn.
    """
    if train and cfg.DATASETS.TRAIN and not any(cells[name] for name in cfg.DATASETS.TRAIN):
        raise CellSegError(
            f"not one cell is annotated in {', '.join(cfg.DATASETS.TRAIN)}, so there is nothing to learn: look at the "
            "masks or label images, and convert them again with cellseg-d2 convert-to-coco"
        )
    for name in cfg.DATASETS.TEST:
        if not cells[name]:
            logger.warning("not one cell is annotated in %s: its score only says whether none is found", name)


def check_resumed(cfg: CfgNode) -> None:
    """Refuse to resume a run that was made for other classes, which numbers and shapes alone would not always show.

    Raises:
        CellSegError: names both.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if not (folder / "last_checkpoint").is_file() or not (folder / CONFIG).is_file():
        return
    try:
        before = list(read_yaml(folder / CONFIG)["MODEL"]["CLASS_NAMES"])
    except (CellSegError, KeyError, TypeError):  # nothing that a run writes: what its checkpoint holds decides
        return
    if before and before != list(cfg.MODEL.CLASS_NAMES):
        raise CellSegError(
            f"the run in {folder} is for the classes {', '.join(map(str, before))}, and --resume cannot continue it "
            f"for {', '.join(cfg.MODEL.CLASS_NAMES)}: give the same datasets, or another OUTPUT_DIR"
        )


def check_weights_stay(cfg: CfgNode) -> None:
    """Refuse initial weights that the training would overwrite: those of an earlier training in the same folder."""
    check_outputs(
        Path(cfg.OUTPUT_DIR).glob("model_*.pth"), [cfg.MODEL.WEIGHTS or None, cfg.MODEL.TIMM.PRETRAINED or None]
    )


def set_up_process(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Do what Detectron2's ``default_setup`` does, except writing the configuration in place before any check.

    Args:
        cfg: complete.
        args: arguments of the command line, for the log.
    """
    rank = comm.get_rank()
    set_up_logging(cfg.OUTPUT_DIR, rank, args.eval_only)
    logger.info("process %d of %d, environment:\n%s", rank + 1, comm.get_world_size(), collect_env_info())
    logger.info("command line: %s\nconfiguration:\n%s", args, cfg.dump())
    seed_all_rng(cfg.SEED + rank if cfg.SEED >= 0 else None)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def require_weights(weights: str) -> str:
    """A local path of ``weights``, downloaded where needed; empty stays empty.

    Raises:
        CellSegError: they cannot be had; the message names the ways out.
    """
    if not weights:
        return weights
    try:
        with limited_silence():
            local = PathManager.get_local_path(weights)
        if Path(local).is_file():
            return local
        reason = "there is no such file"
    except MemoryError:
        raise
    except Exception as error:  # whatever the download or the path handler raises
        reason = one_line(error)
    raise CellSegError(
        f"the weights {weights!r} cannot be had ({reason}); the ways out: download them elsewhere and give the file as "
        f"MODEL.WEIGHTS /path/to/file, or train from scratch with "
        f"MODEL.WEIGHTS '' MODEL.RESNETS.NORM GN MODEL.BACKBONE.FREEZE_AT 0"
    )
