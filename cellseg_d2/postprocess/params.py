"""How detections become cells: ``TEST.POSTPROCESS`` of a configuration as one plain data class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import write_text_atomic
from cellseg_d2.io.text import read_yaml
from cellseg_d2.masks.overlaps import POLICIES

# Fragment of a configuration with the values by which the detections beside it were turned into cells.
FILE_NAME = "postprocess.yaml"
RANKINGS = ("box", "box*mask")
MASK_THRESHOLDINGS = ("fixed", "dice")
# What switches all rules about areas but the smallest area off: who names that wants every cell from there on.
MIN_AREAS_ALONE = {"min_area_share": 0.0, "doubtful_areas": (0,)}
# Annotations that lie further beside their cells are of other images.
MAX_OFFSET = 5
# Of these there is one value for all classes, or one for each.
PER_CLASS = ("score_thresholds", "mask_thresholds", "min_areas", "doubtful_areas")


@dataclass(frozen=True)
class PostprocessParams:
    """How detections become cells; :func:`cellseg_d2.postprocess.steps.postprocess` tells the order of the steps.

    What is given as a tuple is one value for all classes or one for each.

    Attributes:
        score_thresholds: a detection needs at least this score, see ``ranking``.
        mask_thresholds: a pixel needs at least this probability, above 0 and at most 1, see ``mask_thresholding``.
        min_areas: a cell needs at least this many pixels, counted after overlaps are resolved.
        mask_thresholding: ``"fixed"``, or ``"dice"``, where the threshold is multiplied by the highest Dice coefficient
            to be expected of the mask, see :attr:`Detections.expected_dice`: at 0.5 the outline is expected to reach
            it. The less sure a mask is, as those of thin cells are, the further out it is drawn.
        ranking: what the score is: ``"box"``, that of the box, or ``"box*mask"``, multiplied by the mean probability
            inside the mask, which ranks unsure masks lower.
        nms_iou: a detection is dropped if its mask's IoU with that of a better one is above this; 1 drops none.
        nms_containment: the same for the intersection over the area of the smaller mask, which also finds a part of a
            cell detected beside the whole of it; 1 drops none.
        overlap_policy: who keeps a pixel that several cells claim: ``"score"`` (the higher score), ``"smaller"`` or
            ``"larger"`` (the smaller or larger mask).
        fill_holes: whether background enclosed by a mask becomes part of it.
        largest_component: whether only the largest 8-connected piece of a mask is kept.
        vote: whether an image holds one type of cell only, so that all its detections take the type with the largest
            sum of box scores. The thresholds of that type then apply to all of them.
        min_area_share: a cell also needs this share of the median area of the image's cells, from 0 to 1;
            unlike a number of pixels, it suits small and large cells alike.
        doubtful_areas: a cell of fewer pixels needs a higher score than its threshold, the higher the smaller it is: in
            proportion to what its diameter lacks, up to 1 for a cell without pixels. Debris is small and unsure, small
            nuclei are small and sure. 0 for none.
        mask_offset: how far masks are moved to the right and down before their threshold, in pixels of the image. The
            annotations of a data set may all lie beside what they outline, by the way that their outlines were made
            pixels; a network that learns from images turned and mirrored cannot learn by how much.

    Raises:
        CellSegError: a value is of a wrong type or out of its range; the message names it.
    """

    score_thresholds: Sequence[float] = (0.5,)
    mask_thresholds: Sequence[float] = (0.5,)
    min_areas: Sequence[int] = (0,)
    ranking: str = "box"
    nms_iou: float = 1.0
    nms_containment: float = 1.0
    overlap_policy: str = "score"
    fill_holes: bool = False
    largest_component: bool = False
    vote: bool = True
    min_area_share: float = 0.0
    doubtful_areas: Sequence[int] = (0,)
    mask_thresholding: str = "fixed"
    mask_offset: Sequence[float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        # As tuples of Python's own numbers they can be hashed, compared and written.
        settle("score_thresholds", _numbers("score_thresholds", self.score_thresholds, float, "at least 0"))
        settle("mask_thresholds", _numbers("mask_thresholds", self.mask_thresholds, float, "above 0, at most 1"))
        for name in ("min_areas", "doubtful_areas"):
            settle(name, _numbers(name, getattr(self, name), int, "at least 0"))
        for name in ("nms_iou", "nms_containment"):
            value = getattr(self, name)
            if not _fits(value, float, "above 0, at most 1"):
                raise CellSegError(f"{name} must be a number above 0, at most 1 (1 drops none), not {value!r}")
            settle(name, float(value))
        offset = self.mask_offset
        if not (isinstance(offset, list | tuple | np.ndarray) and len(offset) == 2 and all(map(_is_offset, offset))):
            raise CellSegError(
                f"mask_offset must be two numbers of pixels, to the right and down, from -{MAX_OFFSET} to "
                f"{MAX_OFFSET}, not {offset!r}"
            )
        settle("mask_offset", tuple(map(float, offset)))
        if not (_fits(self.min_area_share, float, "at least 0") and self.min_area_share <= 1):
            raise CellSegError(f"min_area_share must be a number from 0 to 1, not {self.min_area_share!r}")
        settle("min_area_share", float(self.min_area_share))
        choices_of = {"ranking": RANKINGS, "overlap_policy": POLICIES, "mask_thresholding": MASK_THRESHOLDINGS}
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise CellSegError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        for name in ("fill_holes", "largest_component", "vote"):
            if not isinstance(getattr(self, name), bool):
                raise CellSegError(f"{name} must be true or false, not {getattr(self, name)!r}")

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any]) -> PostprocessParams:
        """``TEST.POSTPROCESS`` of a configuration."""
        return cls(**{key.lower(): value for key, value in cfg["TEST"]["POSTPROCESS"].items()})

    def for_classes(self, values: Sequence[float], classes: np.ndarray, name: str) -> np.ndarray:
        """``values`` looked up for each of ``classes``; a single value serves all."""
        if len(values) == 1:
            return np.full(len(classes), values[0])
        if len(classes) and classes.max() >= len(values):
            raise CellSegError(
                f"{name} has {len(values)} values but the model knows a class number {classes.max() + 1}: "
                f"give one value, or one for each class"
            )
        return np.asarray(values)[classes]

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Refuse lists that have neither one value nor one for each of the classes."""
        for name in PER_CLASS:
            if (count := len(getattr(self, name))) not in (1, len(class_names)):
                raise CellSegError(
                    f"{name} has {count} values, but the model has {len(class_names)} classes "
                    f"({', '.join(class_names)}): give one value, or one for each class"
                )

    def to_config(self) -> dict[str, Any]:
        """All values as ``TEST.POSTPROCESS`` holds them."""
        return {name.upper(): list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def to_yaml(self, path: str | Path, comment: str = "") -> None:
        """Write all values as a fragment of a configuration atomically, below ``comment``.

        A configuration can name the file as ``_BASE_``, and ``--postprocess`` of the tools lays it over one.
        """
        head = "".join(f"# {line}\n" for line in comment.splitlines())
        content = {"TEST": {"POSTPROCESS": self.to_config()}}
        write_text_atomic(path, head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None))

    @classmethod
    def from_yaml(cls, path: str | Path, start: PostprocessParams | None = None) -> PostprocessParams:
        """``TEST.POSTPROCESS`` of a YAML file; what it does not name stays as in ``start``, by default the built-in.

        Files of earlier versions, which hold the values alone and in lower case, are read as well.

        Raises:
            CellSegError: the file cannot be read, names an unknown key or other files, or a value is wrong.
        """
        content = read_yaml(path)
        if isinstance(content, dict) and "_BASE_" in content:
            raise CellSegError(
                f"{path} builds on other files (_BASE_), which are not read here: give one that holds TEST.POSTPROCESS "
                "itself, such as a run's config.yaml"
            )
        if isinstance(content, dict) and "TEST" in content:
            content = content["TEST"].get("POSTPROCESS") if isinstance(content["TEST"], dict) else None
        if not isinstance(content, dict):
            raise CellSegError(
                f"{path} holds no post-processing: keys of TEST.POSTPROCESS such as SCORE_THRESHOLDS are expected"
            )
        known = [field.name.upper() for field in fields(cls)]
        unknown = [str(key) for key in content if str(key).upper() not in known]
        if unknown:
            raise CellSegError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
        try:
            return replace(start or cls(), **{key.lower(): value for key, value in content.items()})
        except CellSegError as error:
            raise CellSegError(f"{path}: {error}") from None


def _fits(value: Any, kind: type, bounds: str) -> bool:
    is_number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    # Larger whole numbers than 64 bits can hold are nobody's area, and no float either.
    if not is_number or not -(2**63) < value < 2**63:
        return False
    return value >= 0 if bounds == "at least 0" else 0 < value <= 1


def _is_offset(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and -MAX_OFFSET <= value <= MAX_OFFSET


def _numbers(name: str, values: object, kind: type, bounds: str) -> tuple:
    if (
        not isinstance(values, list | tuple | np.ndarray)
        or len(values) == 0
        or not all(_fits(value, kind, bounds) for value in values)
    ):
        whole = "whole numbers" if kind is int else "numbers"
        raise CellSegError(f"{name} must be a list of {whole} {bounds}, one or one for each class, not {values!r}")
    return tuple(kind(value) for value in values)
