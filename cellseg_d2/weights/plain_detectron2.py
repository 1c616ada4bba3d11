"""Export models for plain Detectron2, without this package: its own keys and files, the same detections."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
)

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_path, atomic_set, write_text_atomic
from cellseg_d2.io.settings import differences, flat, nested
from cellseg_d2.modeling.build import build_network
from cellseg_d2.weights.model_folder import CONFIG, check_free
from cellseg_d2.weights.weights import load_trained

# The name that Detectron2 gives to the result of a training.
PLAIN_WEIGHTS = "model_final.pth"
# What prediction reads outside of MODEL.
_INPUT, _TEST = ("FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST"), ("DETECTIONS_PER_IMAGE",)
_PARTS = {
    "META_ARCHITECTURE": META_ARCH_REGISTRY,
    "BACKBONE.NAME": BACKBONE_REGISTRY,
    "PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
}
_HEADER = """\
# For plain Detectron2. {classes}
#   cfg = detectron2.config.get_cfg()
#   cfg.merge_from_file("{config}")
#   cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "{weights}", "cpu"
{use}
# What it gives is what the network detects: thresholds, the removal of overlaps, test-time augmentation and tiles are
# cellseg_d2's, and are not in here.
"""
_PREDICTOR = """\
#   detectron2.engine.DefaultPredictor(cfg)(cv2.imread("an 8-bit image"))["instances"]"""
_MODEL = """\
# DefaultPredictor gives three channels, but this network takes one: load the weights into build_model(cfg) with
# DetectionCheckpointer, resize as the keys of INPUT say, and call it with a tensor of 1 x H x W grey levels."""


def export_plain_detectron2(cfg: CfgNode, weights: str | Path, folder: str | Path) -> Path:
    """Write ``config.yaml`` of Detectron2's keys only and ``model_final.pth``; returns the folder.

    With them, plain Detectron2 detects the same in 8-bit images as this package does before post-processing.

    Args:
        cfg: configuration of the run.
        weights: its checkpoint; all parameters are kept with 32 bits.
        folder: created if needed; files of the same names are replaced.

    Raises:
        CellSegError: the network, or what an image goes through before it, is not Detectron2's; the weights do not
            fit; or the folder holds other weights.
    """
    check_plain(cfg)
    folder = Path(folder)
    check_free(folder, PLAIN_WEIGHTS)
    model = build_network(cfg)
    load_trained(model, weights)
    header = _HEADER.format(
        classes=f"Classes, in order: {', '.join(cfg.MODEL.CLASS_NAMES)}." if cfg.MODEL.CLASS_NAMES else "",
        config=CONFIG,
        weights=PLAIN_WEIGHTS,
        use=_PREDICTOR if len(cfg.MODEL.PIXEL_MEAN) == 3 else _MODEL,
    )
    settings = yaml.safe_dump(plain_settings(cfg), sort_keys=False, default_flow_style=None)
    with atomic_set():
        with atomic_path(folder / PLAIN_WEIGHTS) as temporary:
            torch.save({"model": model.state_dict()}, temporary)
        write_text_atomic(folder / CONFIG, header + settings)
    return folder


def check_plain(cfg: CfgNode) -> None:
    """Refuse a configuration that plain Detectron2 cannot follow.

    Raises:
        CellSegError: names the first key that it cannot follow, and the way out.
    """
    for key, registry in _PARTS.items():
        name = _plain_name(cfg, key)
        if name and not (name in registry and registry.get(name).__module__.startswith("detectron2.")):
            raise CellSegError(
                f"MODEL.{key} is {name}, which plain Detectron2 lacks; only networks of its own parts can be exported "
                "for it, such as those of configs/sartorius"
            )
    if cfg.INPUT.INTENSITY != "auto":
        raise CellSegError(
            f"INPUT.INTENSITY is {cfg.INPUT.INTENSITY}, but plain Detectron2 cannot stretch images: add "
            "INPUT.INTENSITY auto, and give it 8-bit images that are stretched already"
        )
    zoom = cfg.INPUT.ZOOM_TEST
    if zoom not in (0, 1):
        raise CellSegError(
            f"INPUT.ZOOM_TEST is {zoom:g}, but plain Detectron2 resizes images to one size and not by a factor: if all "
            f"of yours have one size, add INPUT.ZOOM_TEST 0 INPUT.MIN_SIZE_TEST N INPUT.MAX_SIZE_TEST M, with N "
            f"{zoom:g} times their shorter and M {zoom:g} times their longer side in pixels"
        )


def _plain_name(cfg: CfgNode, key: str) -> str:
    """The part that the configuration names, or the one of Detectron2's that predicts the same."""
    name = str(flat(cfg)[f"MODEL.{key}"])
    return getattr(_PARTS[key].get(name), "plain_name", name) if name in _PARTS[key] else name


def plain_settings(cfg: CfgNode) -> dict:
    """What differs from Detectron2's own defaults, of its own keys that prediction reads, as plain nested values."""
    stock = flat(get_cfg())
    own = {key: value for key, value in flat(cfg).items() if key in stock}
    own |= {f"MODEL.{key}": _plain_name(cfg, key) for key in _PARTS}
    changed = nested({key: own[key] for key in differences(own, stock) if key in own})
    size = {"MIN_SIZE_TEST": 0} if cfg.INPUT.ZOOM_TEST == 1 else {}  # 0 leaves the size as it is
    return {
        "VERSION": cfg.VERSION,
        "MODEL": {key: value for key, value in changed["MODEL"].items() if key not in ("WEIGHTS", "DEVICE")},
        "INPUT": {**{key: cfg.INPUT[key] for key in _INPUT}, **size},
        "TEST": {key: cfg.TEST[key] for key in _TEST},
    }
