"""Read and check values of ``INPUT``, so that a mistake is reported by its key and not by its effects."""

from __future__ import annotations

import math
from numbers import Real

import detectron2.data.transforms as T
from detectron2.config import CfgNode

from cellseg_d2.data.augmentations.warp import OUTSIDE_POLICIES
from cellseg_d2.errors import CellSegError


def get(cfg: CfgNode, key: str):
    """The value of ``INPUT.<key>``, where the key may have dots."""
    value = cfg.INPUT
    for part in key.split("."):
        value = value[part]
    return value


def number(cfg: CfgNode, key: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A number in ``[low, high]``."""
    value = get(cfg, key)
    if not (isinstance(value, Real) and low <= value <= high):
        raise CellSegError(f"INPUT.{key} is {value!r}; it must be a number {_bounds(low, high)}")
    return float(value)


def interval(
    cfg: CfgNode, key: str, low: float = -math.inf, high: float = math.inf, positive: bool = False
) -> tuple[float, float]:
    """Two ascending numbers in ``[low, high]``; with ``positive``, above 0."""
    values = get(cfg, key)
    if positive:
        low = math.ulp(0)
    numbers = isinstance(values, list | tuple) and len(values) == 2 and all(isinstance(v, Real) for v in values)
    if not (numbers and low <= values[0] <= values[1] <= high):
        wanted = "above 0" if positive else _bounds(low, high)
        raise CellSegError(f"INPUT.{key} is {values!r}; it must be two ascending numbers {wanted}".rstrip())
    return float(values[0]), float(values[1])


def size(cfg: CfgNode, key: str) -> tuple[int, int]:
    """``(height, width)`` in pixels, 0 for the input's."""
    values = get(cfg, key)
    if not (
        isinstance(values, list | tuple) and len(values) == 2 and all(isinstance(v, int) and v >= 0 for v in values)
    ):
        raise CellSegError(f"INPUT.{key} is {values!r}; it must be [height, width] in pixels, 0 for the input's")
    return tuple(values)


def outside(cfg: CfgNode, key: str) -> str:
    """What is seen outside the image."""
    value = get(cfg, key)
    if value not in OUTSIDE_POLICIES:
        raise CellSegError(f"INPUT.{key} is {value!r}; it can be {' or '.join(OUTSIDE_POLICIES)}")
    return value


def sometimes(cfg: CfgNode, name: str, augmentation: T.Augmentation) -> list[T.Augmentation]:
    """The augmentation with chance ``INPUT.<name>.PROBABILITY``."""
    probability = number(cfg, f"{name}.PROBABILITY", 0, 1)
    return [T.RandomApply(augmentation, probability)] if probability > 0 else []


def _bounds(low: float, high: float) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    return f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
