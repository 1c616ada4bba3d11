"""Adapt weights of another training: other classes, other channels, other anchors, a cascade.

Detectron2's checkpointer takes what has the same name and shape and warns of the rest. For fine-tuning this takes too
little where a parameter can be adapted, and too much where nothing useful is left.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from tabulate import tabulate
from torch import nn

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.settings import flat
from cellseg_d2.modeling.timm_backbone import TIMM_BACKBONE
from cellseg_d2.weights.weight_files import WeightFile, config_beside, read_weight_file

# Parameters with one block of rows a class; what follows the classes' own rows is the background's.
CLASS_ROWS = (
    (re.compile(r"roi_heads\.box_predictor\.(\d+\.)?cls_score\.(weight|bias)"), 1, 1),
    (re.compile(r"roi_heads\.box_predictor\.(\d+\.)?bbox_pred\.(weight|bias)"), 4, 0),
    (re.compile(r"roi_heads\.mask_head\.predictor\.(weight|bias)"), 1, 0),
    (re.compile(r"dense_head\.classifier\.(weight|bias)"), 1, 0),
)
# Settings that the parameters depend on although their shapes do not.
SILENT_SETTINGS = ("PIXEL_MEAN", "PIXEL_STD", "ANCHOR_GENERATOR.SIZES", "ANCHOR_GENERATOR.ASPECT_RATIOS")


@dataclass
class Transfer:
    """How the weights were used.

    Attributes:
        loaded: parameters of the model that were taken as they are.
        adapted: how others were taken, by name.
        initialised: why others were not, by name; they keep their random values.
        unused: names in the weights that the model does not have.
        notes: sentences about settings that differ between the two trainings.
    """

    loaded: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    initialised: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [
            *(("loaded", f"{module}.*", f"{count} parameters") for module, count in _modules(self.loaded).items()),
            *(("adapted", name, how) for name, how in self.adapted.items()),
            *(("newly initialised", name, why) for name, why in self.initialised.items()),
            *(("not used", f"{module}.*", f"{count} parameters") for module, count in _modules(self.unused).items()),
        ]
        return "\n".join(
            [
                f"{len(self.loaded)} parameters loaded, {len(self.adapted)} adapted, {len(self.initialised)} "
                f"newly initialised, {len(self.unused)} of the weights not used",
                tabulate(rows, ["", "parameter", ""], disable_numparse=True),
                *self.notes,
            ]
        )


def _modules(names: Sequence[str]) -> dict[str, int]:
    """Numbers of parameters by their first three levels, such as ``backbone.bottom_up.res2``."""
    return dict(Counter(".".join(name.split(".")[:-1][:3]) or name for name in names))


def load_pretrained(model: nn.Module, cfg: CfgNode) -> Transfer:
    """Initialise a model from ``MODEL.WEIGHTS``: an earlier run's ``.pth``, or a ``.pkl`` of Detectron2's model zoo.

    Of each parameter, what fits is taken:

    * the same shape: as it is;
    * a first layer for 1 instead of 3 channels, or the other way round: the sum, or equal shares, so that a grey image
      repeated over the channels gives the same result;
    * predictors of the heads, where the weights' classes are known from the ``config.yaml`` beside them: the rows of
      classes with the same name. A single class stands for all cells and serves every new class;
    * a box head for each stage of a cascade: from the only one there is;
    * anything else keeps its random values.

    Args:
        model: changed in place; not wrapped.
        cfg: with ``MODEL.WEIGHTS`` and the names of the model's classes.

    Returns:
        How each parameter was initialised.

    Raises:
        CellSegError: the file cannot be read, or is of another network: nothing matches, a part of the backbone does
            not, or the backbone is normalised otherwise. Such weights would be little better than none.
    """
    path = Path(PathManager.get_local_path(cfg.MODEL.WEIGHTS))
    file = read_weight_file(path)
    before = config_beside(path)
    state = model.state_dict()
    _check_norm(path, file, state, cfg)
    values, transfer = match_weights(
        state, _named_as(state, file), _class_sources(before.get("CLASS_NAMES") or None, cfg.MODEL.CLASS_NAMES)
    )
    _check_enough(path, state, transfer, cfg)
    transfer.notes = _differing_settings(before, cfg)
    model.load_state_dict(values, strict=False)
    return transfer


def match_weights(
    state: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], sources: Sequence[int | None] | None = None
) -> tuple[dict[str, torch.Tensor], Transfer]:
    """Choose and adapt weights for a model's parameters.

    Args:
        state: the model's ``state_dict()``.
        weights: by the same names.
        sources: for each class of the model its index among the classes of the weights, None if it is not among them.
            None if the weights' classes are not known; predictors with the same shape are then taken as they are.

    Returns:
        New values of those parameters that the weights have something for, and what became of all of them.
    """
    transfer = Transfer()
    values = {}
    used = set()
    for name, target in state.items():
        source = _source_name(name, weights)
        if source is None:
            if not name.endswith("num_batches_tracked"):
                transfer.initialised[name] = "not in the weights"
            continue
        used.add(source)
        value, how = _fitted(name, weights[source], target, sources)
        if value is None:
            transfer.initialised[name] = how
            continue
        values[name] = value
        if source != name:
            how = f"{how}, " * bool(how) + f"from {source}"
        if how:
            transfer.adapted[name] = how
        else:
            transfer.loaded.append(name)
    transfer.unused = [name for name in weights if name not in used and "anchor_generator" not in name]
    return values, transfer


def _source_name(name: str, weights: Mapping) -> str | None:
    of_all_stages = re.sub(r"^(roi_heads\.box_head)\.\d+\.", r"\1.", name)
    return next((source for source in (name, of_all_stages) if source in weights), None)


def _fitted(
    name: str, value: torch.Tensor, target: torch.Tensor, sources: Sequence[int | None] | None
) -> tuple[torch.Tensor | None, str]:
    """The value for a parameter and how it was adapted (empty: not), or None and why there is none."""
    if sources is not None:
        for pattern, rows, background in CLASS_ROWS:
            # Box regression may be the same for all classes; its four rows then belong to no class.
            if pattern.fullmatch(name) and len(target) == rows * len(sources) + background:
                return _by_class(value, target, sources, rows, background)
    if value.shape == target.shape:
        return value, ""
    if value.dim() == target.dim() == 4 and value.shape[:1] + value.shape[2:] == target.shape[:1] + target.shape[2:]:
        channels, wanted = value.shape[1], target.shape[1]
        if (channels, wanted) == (3, 1):
            return value.sum(dim=1, keepdim=True), "3 channels summed into 1"
        if (channels, wanted) == (1, 3):
            return value.expand(-1, 3, -1, -1) / 3, "1 channel shared out to 3"
    return None, f"{_shape(value)} in the weights, {_shape(target)} here"


def _by_class(
    value: torch.Tensor, target: torch.Tensor, sources: Sequence[int | None], rows: int, background: int
) -> tuple[torch.Tensor | None, str]:
    known = [source for source in sources if source is not None]
    if not known:
        return None, "other classes"
    if value.shape[1:] != target.shape[1:] or len(value) < rows * (max(known) + 1) + background:
        return None, f"{_shape(value)} in the weights, {_shape(target)} here"
    if value.shape == target.shape and list(sources) == list(range(len(sources))):
        return value, ""
    result = target.clone()
    for index, source in enumerate(sources):
        if source is not None:
            result[rows * index : rows * (index + 1)] = value[rows * source : rows * (source + 1)]
    if background:
        result[-background:] = value[-background:]
    new = len(sources) - len(known)
    if len(known) > len(set(known)):
        return result, "the only class of the weights for each"
    return result, "classes of the same names" + f", {new} of {len(sources)} newly initialised" * (new > 0)


def _class_sources(before: Sequence[str] | None, now: Sequence[str]) -> list[int | None] | None:
    if not before or not now:
        return None
    if len(before) == 1:
        return [0] * len(now)
    return [list(before).index(name) if name in before else None for name in now]


def _named_as(state: Mapping[str, torch.Tensor], file: WeightFile) -> dict[str, torch.Tensor]:
    """The weights by the model's names; backbones that were trained alone have shorter ones."""
    if not file.other_names:
        return file.weights
    named = align_and_update_state_dicts(state, dict(file.weights), c2_conversion=file.caffe2)
    for short in [name for name in named if name not in state]:
        full = [name for name in state if name.endswith(f".{short}") and name not in named]
        if len(full) == 1:  # left aside because of its shape, which may be that of other channels
            named[full[0]] = named.pop(short)
    return named


def _check_norm(path: Path, file: WeightFile, state: Mapping[str, torch.Tensor], cfg: CfgNode) -> None:
    """Parameters of one kind of normalisation have the names and shapes of another's, but not its meaning."""
    outside = ("fpn_", "roi_heads.", "proposal_generator.", "dense_head.")
    before = _norm([name for name in file.weights if not any(part in name for part in outside)])
    now = _norm([name for name in state if name.startswith("backbone.") and "fpn_" not in name])
    if before and now and before != now:
        setting = "FrozenBN" if before == "batch norm" else "GN"
        # Networks of timm have the normalisation that they were designed with.
        way = "" if cfg.MODEL.BACKBONE.NAME == TIMM_BACKBONE else f"set MODEL.RESNETS.NORM {setting}, or "
        raise CellSegError(
            f"the backbone of {path} has {before}, that of the configuration {now}: {way}choose other weights"
        )


def _norm(names: Sequence[str]) -> str | None:
    if any(name.endswith("running_mean") or "_bn_" in name for name in names):
        return "batch norm"
    return "group norm" if any(".norm." in name or "_gn_" in name for name in names) else None


def _check_enough(path: Path, state: Mapping[str, torch.Tensor], transfer: Transfer, cfg: CfgNode) -> None:
    taken = {*transfer.loaded, *transfer.adapted}
    if not taken:
        example = f", for example {transfer.unused[0]}" if transfer.unused else ""
        raise CellSegError(f"nothing in {path} has a name and a shape of this model{example}: they are other weights")
    # Normalisation and some convolutions have the same names and shapes in other networks. The first layer may differ.
    network = [name for name, value in state.items() if name.startswith("backbone.bottom_up.") and value.dim() > 1]
    found = [name for name in network if name in taken or ".stem." in name]
    if len(found) < len(network):
        example = next(name for name in network if name not in found)
        chosen_by = "TIMM" if cfg.MODEL.BACKBONE.NAME == TIMM_BACKBONE else "RESNETS"
        raise CellSegError(
            f"{path} has only {len(found)} of the {len(network)} convolutions of the backbone (not {example}): it is "
            f"of another network; compare MODEL.{chosen_by} with the configuration of its training"
        )


def _differing_settings(before: Mapping, cfg: CfgNode) -> list[str]:
    notes, earlier, now = [], flat(before), flat(cfg.MODEL)
    for key in SILENT_SETTINGS:
        old, new = earlier.get(key), now[key]
        if key.startswith("PIXEL"):  # one value for all channels is the same for any number of them
            old, new = old and sorted(set(old)), sorted(set(new))
        if old and old != new:
            notes.append(f"note: the weights were trained with MODEL.{key} {old}, now it is {new}")
    return notes


def _shape(value: torch.Tensor) -> str:
    return " × ".join(map(str, value.shape)) or "1 value"
