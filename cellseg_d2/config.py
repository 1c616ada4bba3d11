"""The keys that cellseg_d2 adds to Detectron2's configuration, and how a configuration is read."""

from __future__ import annotations

import math
import os
import re
import secrets
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg
from fvcore.common.config import BASE_KEY

import cellseg_d2.modeling  # noqa: F401  registers what configurations name
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.settings import interval
from cellseg_d2.detections.dense import DenseParams
from cellseg_d2.detections.fusion import FusionParams
from cellseg_d2.errors import CellSegError, did_you_mean, one_line
from cellseg_d2.images.intensity import MODES
from cellseg_d2.io.settings import differences, flat, nested
from cellseg_d2.io.text import read_json, read_yaml
from cellseg_d2.postprocess.params import FILE_NAME as POSTPROCESS_FILE
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.tiling.grid import LEAST_TILE

# Least and largest value of numbers that a wrong sign or an exponent would turn into a hang, a crash or nonsense.
RANGES = {
    "SEED": (-(2**31), 2**31),  # within what all generators take, also with the number of a process added
    "TEST.SCALE_NEIGHBORS": (0, 100),
    "INPUT.ZOOM_TEST": (0, 20),
    "INPUT.CELL_DIAMETER": (0, 10_000),
    "INPUT.MIN_SIZE_TEST": (0, 100_000),
    "INPUT.MAX_SIZE_TEST": (1, 100_000),
    "TEST.TILE": (LEAST_TILE, 100_000),
    "TEST.DETECTIONS_PER_IMAGE": (1, 1_000_000),
    "SOLVER.IMS_PER_BATCH": (1, 100_000),
    "SOLVER.GRADIENT_ACCUMULATION": (1, 100_000),
    "SOLVER.EMA.DECAY": (0, 1),
    "SOLVER.MAX_ITER": (0, math.inf),
    "SOLVER.BASE_LR": (0, math.inf),
    "DATALOADER.NUM_WORKERS": (0, 10_000),
    "DATALOADER.CACHE_MB": (0, math.inf),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": (0, 1),
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": (0, 1),
    "MODEL.DENSE.CHANNELS": (1, 100_000),
    "MODEL.DENSE.MIN_PIXELS": (0, math.inf),
    "MODEL.DENSE.MAX_FLOW_ERROR": (0, math.inf),
    "MODEL.DENSE.MASK_SIZE": (1, 1000),
    "MODEL.DENSE.FUSION_WEIGHT": (0, 1000),
    **{f"MODEL.DENSE.{name}_WEIGHT": (0, math.inf) for name in ("FOREGROUND", "BOUNDARY", "FLOW", "CLASS")},
}


_NO_KEY = re.compile(r"Non-existent (?:config )?key: (?P<key>[\w.]+)")
_WRONG_TYPE = re.compile(
    r"Type mismatch \(<class '(?P<wanted>[\w.]+)'> vs\. <class '[\w.]+'>\) "
    r"with values \((?P<old>.*) vs\. (?P<new>.*)\) for config key: (?P<key>[\w.]+)",
    re.DOTALL,
)
_TYPES = {
    "list": "a list", "tuple": "a list", "int": "a whole number", "float": "a number", "str": "a text",
    "bool": "True or False",
}  # fmt: skip


def add_cellseg_config(cfg: CN) -> None:
    """Add the project's keys, with their defaults, to ``detectron2.config.get_cfg()``."""
    # How intensities are converted to the 0…255 that the network expects. "auto": 8-bit images as they are, all others
    # stretched between percentiles. "percentile": always stretched.
    cfg.INPUT.INTENSITY = "auto"
    cfg.INPUT.INTENSITY_PERCENTILES = [0.1, 99.9]
    # In prediction, images are resized by this factor; 0 resizes to MIN_SIZE_TEST, as in Detectron2. A factor keeps the
    # size of cells if images of one microscope differ in size, such as tiles of a large image.
    cfg.INPUT.ZOOM_TEST = 0.0
    # Median diameter in pixels of the image of the cells that the model was trained on at this zoom; 0 is unknown.
    # Users can then give the diameter of their own cells (cellseg_d2/inference/scale.py).
    cfg.INPUT.CELL_DIAMETER = 0.0
    # The augmentations of training images, in this order (cellseg_d2/data/augmentations).
    cfg.INPUT.AUGMENTATIONS = ["resize", "crop", "rotation", "flip", "vertical_flip"]
    # The settings of each, INPUT.<NAME>, are documented with it.
    for name, entry in AUGMENTATION_REGISTRY.items():
        if defaults := entry.details.get("defaults"):
            cfg.INPUT[name.upper()] = CN(defaults)
    # A cell that an augmentation leaves with fewer pixels than this is not trained on.
    cfg.INPUT.MIN_CELL_AREA = 10
    # Neither is a cell of which less than this share is left.
    cfg.INPUT.MIN_CELL_VISIBLE = 0.0
    # Cells of other training images are pasted into an image with this chance, at most COUNT of them.
    cfg.INPUT.COPY_PASTE = CN()
    cfg.INPUT.COPY_PASTE.PROBABILITY = 0.0
    cfg.INPUT.COPY_PASTE.COUNT = 10
    # The datasets that the cells come from; () is DATASETS.TRAIN. Images on which only some cells are annotated can be
    # such a source; to train on them, convert them with --partly-annotated.
    cfg.INPUT.COPY_PASTE.DATASETS = ()
    # Pasted cells are resized by a random factor.
    cfg.INPUT.COPY_PASTE.SCALE = [1.0, 1.0]

    # What categories of the datasets are called in the model, as pairs: [["A172", "glioma"], ["*", "cell"]], where "*"
    # stands for all others. Without a pair a category keeps its name. They are matched with MODEL.CLASS_NAMES by name.
    cfg.DATASETS.CATEGORY_MAP = []
    # How often an image of a dataset is seen in an epoch, as pairs: [["livecell_train", 0.5]]; 1 for all others.
    # Where given, DATALOADER.SAMPLER_TRAIN is Detectron2's WeightedTrainingSampler.
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = []

    # "SGD" or "AdamW", both with the SOLVER's learning rate, weight decay and gradient clipping.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rate of the backbone relative to the heads', and of each of its stages relative to the next: features
    # learnt on photographs need to change less than randomly initialised heads, and the first ones least.
    cfg.SOLVER.BACKBONE_LR_FACTOR = 1.0
    cfg.SOLVER.STAGE_LR_DECAY = 1.0
    # An iteration draws this many batches and steps on the mean of their gradients: a batch of IMS_PER_BATCH ×
    # GRADIENT_ACCUMULATION images in the memory of IMS_PER_BATCH.
    cfg.SOLVER.GRADIENT_ACCUMULATION = 1
    # An exponential moving average of the weights, of which an iteration leaves DECAY, is evaluated and saved in place
    # of the weights that are trained.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.999
    # Lengths in epochs of the training set instead of iterations. One that is above 0 replaces its counterpart in
    # iterations: MAX_ITER, STEPS, CHECKPOINT_PERIOD, TEST.EVAL_PERIOD.
    cfg.SOLVER.EPOCHS = 0
    cfg.SOLVER.STEP_EPOCHS = []
    cfg.SOLVER.CHECKPOINT_EPOCHS = 0
    cfg.TEST.EVAL_EPOCHS = 0

    # The same SEED gives the same training: initial weights, order of images, augmentations, and the model's random
    # numbers. On CPUs results are identical bit for bit with the same versions and number of threads, for any number of
    # workers, and also if the run was interrupted and resumed. On CUDA some gradients (of ROIAlign, of interpolation)
    # are sums in the order in which threads finish: weights differ in their last digits at first, and later in more.
    # CUDNN_BENCHMARK, which chooses convolutions by their speed, adds to that. For a negative SEED one is drawn and
    # noted in config.yaml and run.json, from which --resume reads it.
    cfg.SEED = -1

    # What is measured on DATASETS.TEST: any of "competition", "livecell", "coco".
    cfg.TEST.EVALUATORS = ["competition"]
    # The checkpoint with the highest value of this metric is kept as model_best.pth.
    cfg.TEST.BEST_METRIC = "competition/mean"

    # From detections to cells; the meaning of each is documented at PostprocessParams.
    cfg.TEST.POSTPROCESS = CN()
    cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS = [0.5]
    cfg.TEST.POSTPROCESS.MASK_THRESHOLDS = [0.5]
    cfg.TEST.POSTPROCESS.MASK_THRESHOLDING = "fixed"
    cfg.TEST.POSTPROCESS.MIN_AREAS = [0]
    cfg.TEST.POSTPROCESS.MIN_AREA_SHARE = 0.0
    cfg.TEST.POSTPROCESS.DOUBTFUL_AREAS = [0]
    cfg.TEST.POSTPROCESS.RANKING = "box"
    cfg.TEST.POSTPROCESS.NMS_IOU = 1.0
    cfg.TEST.POSTPROCESS.NMS_CONTAINMENT = 1.0
    cfg.TEST.POSTPROCESS.OVERLAP_POLICY = "score"
    cfg.TEST.POSTPROCESS.FILL_HOLES = False
    cfg.TEST.POSTPROCESS.LARGEST_COMPONENT = False
    cfg.TEST.POSTPROCESS.VOTE = True
    cfg.TEST.POSTPROCESS.MASK_OFFSET = [0.0, 0.0]
    # Whether the evaluator "competition" writes all detections to inference/<dataset>/detections.npz, on which
    # cellseg-d2 tune-postprocess searches for better values of the above.
    cfg.TEST.SAVE_DETECTIONS = False

    # If INPUT.ZOOM_TEST is set: scales relative to it at which an image is segmented to find the size of its cells; the
    # scale at which most is found is used. A single scale is used for all images.
    cfg.TEST.SCALES = [1.0]
    # How many of SCALES next below the chosen scale, and as many above, are merged with it (TEST.FUSION).
    cfg.TEST.SCALE_NEIGHBORS = 0
    # Number format of predictions: "float32", "bfloat16", or "auto", which is bfloat16 on processors that have
    # instructions for it.
    cfg.TEST.PRECISION = "auto"
    # Side in pixels of the windows into which larger images are divided, if INPUT.ZOOM_TEST is set.
    cfg.TEST.TILE = 1024

    # Test-time augmentation in prediction and evaluation: every orientation at every scale, merged.
    cfg.TEST.TTA = CN()
    cfg.TEST.TTA.ENABLED = False
    # "none", "horizontal", "vertical" or "both".
    cfg.TEST.TTA.FLIPS = "both"
    cfg.TEST.TTA.QUARTER_TURNS = True
    # Factors of the network's input relative to its usual size.
    cfg.TEST.TTA.SCALES = [1.0]
    # How detections of several views or models are merged; the meaning of each is documented at FusionParams.
    cfg.TEST.FUSION = CN()
    cfg.TEST.FUSION.IOU = 0.4
    cfg.TEST.FUSION.COMPARED = "mask"
    cfg.TEST.FUSION.BOXES = "weighted"
    cfg.TEST.FUSION.ABSENCE = 0.5

    # The backbone "build_timm_fpn_backbone": a network of timm, such as "tf_efficientnet_lite0" or "convnext_tiny".
    cfg.MODEL.TIMM = CN()
    cfg.MODEL.TIMM.NAME = "tf_efficientnet_lite0"
    # "FrozenBN" keeps the statistics of the pre-training; "" leaves the network's own norms.
    cfg.MODEL.TIMM.NORM = "FrozenBN"
    # Initial weights of a training without MODEL.WEIGHTS: a file of the network's weights, "hub" (timm downloads them),
    # "package" (of the Python package index, see cellseg_d2/weights/timm_weights.py), or "" for random weights.
    cfg.MODEL.TIMM.PRETRAINED = ""
    # Convolutions on a CPU are faster if the channels of a pixel lie side by side in memory.
    cfg.MODEL.CHANNELS_LAST = False

    # A dense branch beside the boxes (MODEL.META_ARCHITECTURE DenseRCNN) or instead of them (DenseSegmenter): a U-Net's
    # decoder that predicts for every pixel whether it is in a cell, and in which direction that cell's centre is.
    cfg.MODEL.DENSE = CN()
    # The decoder, a name in Detectron2's registry of heads for whole images (SEM_SEG_HEADS).
    cfg.MODEL.DENSE.NAME = "UNetHead"
    # Outputs of the backbone that it is built on, and channels of its layers.
    cfg.MODEL.DENSE.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.DENSE.CHANNELS = 64
    cfg.MODEL.DENSE.NORM = "GN"
    # Whether it also gets the image itself, since the backbone may lose its finest structures.
    cfg.MODEL.DENSE.STEM = True
    # Stride of the prediction in pixels of the network's input: 1, 2 or 4.
    cfg.MODEL.DENSE.STRIDE = 2
    # Weights of the losses.
    cfg.MODEL.DENSE.FOREGROUND_WEIGHT = 1.0
    cfg.MODEL.DENSE.BOUNDARY_WEIGHT = 0.5
    cfg.MODEL.DENSE.FLOW_WEIGHT = 2.0
    cfg.MODEL.DENSE.CLASS_WEIGHT = 0.2
    # Pixels from this probability on are followed to their cells' centres. Lower than the thresholds of masks, which
    # are applied later.
    cfg.MODEL.DENSE.THRESHOLD = 0.4
    # A cell needs at least this many pixels of the prediction.
    cfg.MODEL.DENSE.MIN_PIXELS = 8
    # A cell is dropped if the field differs from the field of its mask by more than this (mean square).
    cfg.MODEL.DENSE.MAX_FLOW_ERROR = 1.0
    # Side of the grids of masks. 56 is enough for all but large cells with thin branches.
    cfg.MODEL.DENSE.MASK_SIZE = 56
    # Weight of a detection of the dense branch relative to one of the boxes when the two are merged (TEST.FUSION). At 0
    # only the boxes' detections are used, and the branch only helps to train the backbone.
    cfg.MODEL.DENSE.FUSION_WEIGHT = 1.0
    # Factors of that weight, one for each of MODEL.CLASS_NAMES, [] for 1 in all: some kinds of cells are outlined
    # better by one than by the other. With TEST.POSTPROCESS.VOTE the image's class decides for all its cells.
    cfg.MODEL.DENSE.CLASS_FUSION_WEIGHTS = []
    # Whether the decoder's features are added to those from which the boxes' masks are predicted.
    cfg.MODEL.DENSE.TO_MASK_HEAD = False

    # Names of the model's classes, in order. Training takes them from the dataset, or checks them if given.
    cfg.MODEL.CLASS_NAMES = []
    # Images without cells are trained on, too: they teach what is not a cell.
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    # Whether masks are kept as a few label images (cellseg_d2/data/label_masks.py) rather than, as in stock Detectron2,
    # as one full-size mask a cell.
    cfg.INPUT.MASK_LAYERS = True
    # For Detectron2's own mapper: converted datasets have no polygons.
    cfg.INPUT.MASK_FORMAT = "bitmask"
    # Megabytes of decoded images and masks that each worker process keeps; the whole competition takes about 800.
    cfg.DATALOADER.CACHE_MB = 512
    # "auto" is CUDA if available, otherwise the CPU.
    cfg.MODEL.DEVICE = "auto"


def default_config() -> CN:
    """Detectron2's defaults with the project's keys."""
    cfg = get_cfg()
    add_cellseg_config(cfg)
    return cfg


def config_folder() -> Path:
    """The folder with the project's own configurations: of the installed package, or of the checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def find_config(config_file: str | Path) -> Path:
    """The given file, or the project's own configuration of that name, such as ``quickstart/cells_effnet_lite0_FPN``.

    Raises:
        CellSegError: there is neither; the message suggests similar names.
    """
    path, own = Path(config_file), config_folder()
    if path.is_file():
        return path
    words = path.as_posix().removesuffix(".yaml").removeprefix("configs/")
    inside = own / f"{words}.yaml"
    if not path.is_absolute() and ".." not in path.parts and inside.is_file():
        return inside
    names = [file.relative_to(own).with_suffix("").as_posix() for file in sorted(own.glob("*/*.yaml"))]
    near = get_close_matches(words, names, n=3, cutoff=0.4) or names[:3]
    raise CellSegError(
        f"there is no configuration file {str(config_file)!r}, nor one of the project's own of that name, such as "
        f"{', '.join(near)}"
    )


def merge_config_file(cfg: CN, config_file: str | Path) -> None:
    """Lay a YAML file over ``cfg``, with the files that it names as ``_BASE_`` below it.

    The only place where files become configurations: they may come from anywhere, and Detectron2's own loader by
    default evaluates what YAML's tags for Python objects say. Here they are refused.

    Raises:
        CellSegError: the file or a ``_BASE_`` of it is missing or no YAML of plain values, or a key or the type of a
            value is wrong.
    """
    if Path(config_file).suffix == ".py":
        raise CellSegError(
            f"{config_file} is a LazyConfig of Detectron2; this reads YAML, such as that in configs/. A LazyConfig can "
            "call the classes of cellseg_d2 by itself, and is trained with Detectron2's own lazyconfig_train_net.py"
        )
    config_file = find_config(config_file)
    _check_files(config_file)
    try:
        cfg.merge_from_file(str(config_file), allow_unsafe=False)
    except MemoryError:
        raise
    except Exception as error:  # yacs and PyYAML raise many types, down to a bare AssertionError
        raise CellSegError(f"{config_file} is not a valid configuration: {_what_is_wrong(error, cfg)}") from error


def _what_is_wrong(error: Exception, cfg: CN) -> str:
    """What yacs says; of a key that there is not with the one that was meant, of a wrong type in plain words."""
    if match := _NO_KEY.search(str(error)):
        known = {".".join(key.split(".")[:depth]) for key in flat(cfg) for depth in range(1, 5)}
        return f"there is no key {match['key']}{did_you_mean(match['key'], sorted(known))}"
    if match := _WRONG_TYPE.search(str(error)):
        key, wanted = match["key"], match["wanted"]
        if wanted in _TYPES:
            return _takes(key, _TYPES[wanted], match["old"], match["new"])
        example = next((known for known in flat(cfg) if known.startswith(f"{key}.")), None)
        if example is not None:
            return f"{key} is a group of keys: name one of them, such as {example}"
    return one_line(error)


def _takes(key: str, kind: str, example: object, given: object) -> str:
    return f"{key} takes {kind}, such as {repr('') if example == '' else example}, not {given}"


def load_config(
    config_file: str | Path, opts: Sequence = (), resume: bool = False, postprocess: str | Path | None = None
) -> CN:
    """Detectron2's defaults, the project's keys, the file, and ``KEY VALUE`` pairs, in this order.

    Args:
        config_file: YAML, with ``_BASE_`` where it builds on another one. A ``postprocess.yaml`` in the same folder, as
            earlier versions left one there, is laid over its ``TEST.POSTPROCESS``.
        opts: ``KEY VALUE`` pairs.
        resume: a negative ``SEED`` becomes that of the run in ``OUTPUT_DIR``, where there is one.
        postprocess: YAML whose ``TEST.POSTPROCESS`` is laid over that of the file.

    Raises:
        CellSegError: the file or a ``_BASE_`` of it is missing or no YAML of plain values, or a key or the type of a
            value is wrong.
    """
    cfg = default_config()
    merge_config_file(cfg, config_file)
    for file in filter(None, (postprocess_beside(config_file), postprocess)):
        params = PostprocessParams.from_yaml(file, PostprocessParams.from_config(cfg))
        cfg.TEST.POSTPROCESS.update(params.to_config())
    if len(opts) % 2:
        raise CellSegError(f"configuration options come as KEY VALUE pairs, but {opts[-1]!r} has no partner")
    try:
        cfg.merge_from_list(list(opts))
    except MemoryError:
        raise
    except Exception as error:
        raise CellSegError(
            f"the options {' '.join(map(str, opts))!r} do not fit the configuration: {_what_is_wrong(error, cfg)}"
        ) from error
    if cfg.MODEL.DEVICE == "auto":
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device(cfg)
    check_values(cfg)
    if cfg.MODEL.DEVICE == "cpu":
        cfg.SOLVER.AMP.ENABLED = False  # Detectron2's mixed precision is for CUDA
    if cfg.SEED < 0:
        record = Path(cfg.OUTPUT_DIR) / "run.json"
        drawn_before = read_json(record)["seed"] if resume and record.is_file() else None
        # Written to the run's configuration and its record, so that it can be repeated.
        cfg.SEED = secrets.randbelow(2**31) if drawn_before is None else drawn_before
    return cfg


def postprocess_beside(config_file: str | Path) -> Path | None:
    """The ``postprocess.yaml`` in the folder of a configuration, see :func:`find_config`; None where there is none."""
    path = find_config(config_file).with_name(POSTPROCESS_FILE)
    return path if path.is_file() else None


def _check_device(cfg: CN) -> None:
    """Refuse what PyTorch cannot compute on here: many names are known to it that it has no part for."""
    name = cfg.MODEL.DEVICE
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CellSegError(f"MODEL.DEVICE is {name!r}, but PyTorch finds no GPU; use cpu or auto")
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise CellSegError(
                f"MODEL.DEVICE is {name!r}, but there are {torch.cuda.device_count()} GPUs, from cuda:0 on"
            )
        # A process that starts others must not take hold of a GPU.
        if device.type != "cuda":
            torch.ones(1, device=device).sum().item()
    except (CellSegError, MemoryError):
        raise
    except Exception as error:  # each of PyTorch's parts has its own
        raise CellSegError(
            f"MODEL.DEVICE is {name!r}, on which PyTorch cannot compute here ({one_line(error)}); use cpu, cuda or auto"
        ) from None
    if device.type == "cpu":
        cfg.MODEL.DEVICE = "cpu"


def check_values(cfg: CN) -> None:
    """Refuse values with which no tool could do anything sensible, before the first of them is hours into its work.

    Types are looked after when files are merged, and what belongs to one augmentation where that is made.

    Raises:
        CellSegError: names the key, and what it can be.
    """
    values: dict[str, Any] = flat(cfg)
    for key, usual in flat(default_config()).items():
        if usual is not None and values.get(key, usual) is None:  # which yacs takes for any type
            raise CellSegError(_takes(key, _TYPES[type(usual).__name__], usual, "None"))
    for key, (low, high) in RANGES.items():
        if not low <= values[key] <= high:  # nor is a NaN
            bounds = f"at least {low:g}" if high == math.inf else f"from {low:.10g} to {high:.10g}"
            raise CellSegError(f"{key} is {values[key]!r}; it must be {bounds}")
    for key in ("TEST.SCALES", "TEST.TTA.SCALES"):
        check_scales(key, values[key])
    low, high = interval(cfg, "INTENSITY_PERCENTILES", 0, 100)
    if low == high:
        raise CellSegError(f"INPUT.INTENSITY_PERCENTILES is {[low, high]}; the two must differ")
    if cfg.INPUT.INTENSITY not in MODES:
        raise CellSegError(f"INPUT.INTENSITY is {cfg.INPUT.INTENSITY!r}; it can be {' or '.join(MODES)}")
    PostprocessParams.from_config(cfg)
    FusionParams.from_config(cfg)
    DenseParams.from_config(cfg)


def check_scales(key: str, scales: Sequence) -> None:
    """Refuse a list of scales that is empty, or has one that is no number from 0.1 to 10."""
    if not scales or not all(isinstance(scale, int | float) and 0.1 <= scale <= 10 for scale in scales):
        raise CellSegError(f"{key} is {scales!r}; it needs at least one factor, each between 0.1 and 10")


def _check_files(config_file: Path, children: tuple[Path, ...] = ()) -> None:
    """Refuse a configuration of which a file, or one that ``_BASE_`` names, is not fit to be merged."""
    content = read_yaml(config_file)
    if not isinstance(content, dict):
        raise CellSegError(f"{config_file} is not a valid configuration: it must hold keys and values")
    bases = content.get(BASE_KEY, [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise CellSegError(
                f"{config_file} is not a valid configuration: {BASE_KEY} must name a file, not {base!r:.40}"
            )
        path = config_file.parent / os.path.expanduser(base)  # of an unknown user it leaves the name
        if not path.is_file():
            raise CellSegError(f"{config_file} builds on {base!r}, but there is no file {path}")
        if path.resolve() in (*children, config_file.resolve()):
            raise CellSegError(f"{config_file} builds on {base!r}, which builds on it in turn")
        _check_files(path, (*children, config_file.resolve()))


def class_names(cfg: CN) -> list[str]:
    """The names of the model's classes, numbered ones where they are not known yet."""
    return list(cfg.MODEL.CLASS_NAMES) or [f"class {i + 1}" for i in range(cfg.MODEL.ROI_HEADS.NUM_CLASSES)]


def changed_settings(cfg: CN) -> dict:
    """What differs from the defaults of Detectron2 and of this project, as plain nested values."""
    own, changed = flat(cfg), set(differences(cfg, default_config()))
    return nested({key: value for key, value in own.items() if key in changed})
