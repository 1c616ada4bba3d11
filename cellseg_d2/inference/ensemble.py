"""Several trained models as one: their detections are fused before anything is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from torch import nn

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.postprocess.params import PostprocessParams

# What the members must agree on, by the key that sets it.
_LOOKS = {
    "intensity": "INPUT.INTENSITY",
    "intensity_percentiles": "INPUT.INTENSITY_PERCENTILES",
    "tile": "TEST.TILE",
    "scales": "TEST.SCALES",
    "scale_neighbors": "TEST.SCALE_NEIGHBORS",
}


class Ensemble(Segmenter):
    """Models of the same cells, such as the folds of a cross-validation, on an equal footing.

    All views of all models are fused in one step, in which a model's views share its weight.

    Args:
        members: at least one. Their classes have the same names; the order may differ.
        params: how detections become cells, by default the first member's. Scores are means over the models, so
            thresholds that were tuned for one model need not be the best.
        fusion: how detections are merged, by default the first member's.
        weights: how much each member counts, by default equally.

    Example:
        >>> folds = [CellSegmenter.from_config(cfg, f"fold{i}/model_best.pth") for i in range(5)]  # doctest: +SKIP
        >>> segmentation = Ensemble(folds).segment("cells.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        members: Sequence[Segmenter],
        params: PostprocessParams | None = None,
        fusion: FusionParams | None = None,
        weights: Sequence[float] | None = None,
    ):
        if not members:
            raise CellSegError("an ensemble needs at least one model")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members):
            raise CellSegError(f"{len(members)} models need as many weights, not {len(weights)}")
        self.members = list(members)
        self.weights = weights
        self.params = params or members[0].params
        self.fusion = fusion or members[0].fusion
        self.class_names = list(members[0].class_names)
        for name, key in _LOOKS.items():
            values = {getattr(member, name) for member in members}
            if len(values) > 1:
                raise CellSegError(
                    f"models of an ensemble must look at images in the same way, but {key} is "
                    f"{' and '.join(sorted(map(str, values)))}; train them alike, or give {key} for all of them"
                )
            setattr(self, name, values.pop())
        diameters = {member.cell_diameter for member in members}
        self.cell_diameter = diameters.pop() if len(diameters) == 1 else 0.0
        self._classes = [self._class_map(member, number) for number, member in enumerate(members, start=1)]

    def _class_map(self, member: Segmenter, number: int) -> np.ndarray:
        """The ensemble's number of each of a member's classes."""
        if sorted(member.class_names) != sorted(self.class_names):
            raise CellSegError(
                f"models of an ensemble must know the same classes, but the first has {', '.join(self.class_names)} "
                f"and number {number} has {', '.join(member.class_names)}"
            )
        return np.array([self.class_names.index(name) for name in member.class_names], dtype=np.int64)

    def networks(self) -> list[nn.Module]:
        """Those of all members."""
        return [network for member in self.members for network in member.networks()]

    def settings(self) -> dict[str, object]:
        """See :meth:`Segmenter.settings`."""
        members = [member.settings() for member in self.members]
        return super().settings() | {"members": members, "weights": self.weights, "fusion": asdict(self.fusion)}

    def detect_views(self, image: np.ndarray, scale: float = 1.0) -> tuple[list[Detections], list[float]]:
        """All views of all members, with class numbers of the ensemble."""
        views, weights = [], []
        for member, weight, classes in zip(self.members, self.weights, self._classes, strict=True):
            own, own_weights = member.detect_views(image, scale)
            for view in own:
                views.append(replace(view, classes=classes[view.classes]))
            weights += [weight * share / sum(own_weights) for share in own_weights]
        return views, weights


def build_segmenter(cfgs: Sequence[CfgNode], weights: Sequence[str | Path]) -> Segmenter:
    """The model, or the ensemble of the models, of checkpoints (``.pth``).

    Args:
        cfgs: one for each checkpoint, or a single one for all. The first decides about post-processing and fusion.
        weights: the checkpoints, at least one.

    Raises:
        CellSegError: the numbers do not fit, or a checkpoint does not fit its configuration.
    """
    if not weights or len(cfgs) not in (1, len(weights)):
        raise CellSegError(
            f"there are {len(cfgs)} configurations for {len(weights)} weights files: give one configuration for all "
            f"weights, or one for each"
        )
    pairs = zip_longest(cfgs, weights, fillvalue=cfgs[0])
    members = [CellSegmenter.from_config(cfg, path) for cfg, path in pairs]
    return members[0] if len(members) == 1 else Ensemble(members)
