"""Search the post-processing that scores best on validation images, and estimate its gain on other images.

The competition's metric has no ranking: the thresholds change the score directly, and differ between cell types. A
search always finds something that fits the images it looked at. The gain is therefore measured by repeating the whole
search in a cross-validation, where each image is scored with values that were found without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from cellseg_d2.datasets.folds import split_groups
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.masks.overlaps import POLICIES
from cellseg_d2.postprocess.params import MASK_THRESHOLDINGS, PER_CLASS, RANKINGS, PostprocessParams
from cellseg_d2.postprocess.tuning_image import ImageTrials

_ROUNDS = 4
# The mean score must rise by more than this: a setting is not changed for the sake of a pixel.
_LEAST_GAIN = 1e-4
# What these change decides where the thresholds belong: each of their values is tried with thresholds found for it.
_THRESHOLDS_OF = {"ranking": "score_thresholds", "mask_thresholding": "mask_thresholds"}


@dataclass(frozen=True)
class SearchSpace:
    """The values that are tried, by the name of the parameter; an empty tuple leaves it as it is.

    They are tried in the order of the attributes. Numbers must ascend.
    """

    score_thresholds: tuple[float, ...] = tuple(percent / 100 for percent in range(5, 100, 5))
    ranking: tuple[str, ...] = RANKINGS
    mask_thresholds: tuple[float, ...] = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
    mask_thresholding: tuple[str, ...] = MASK_THRESHOLDINGS
    mask_offset: tuple[float, ...] = (-0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75)
    nms_containment: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    nms_iou: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    overlap_policy: tuple[str, ...] = POLICIES
    fill_holes: tuple[bool, ...] = (False, True)
    largest_component: tuple[bool, ...] = (False, True)
    min_areas: tuple[int, ...] = (0, 15, 30, 45, 60, 80, 100, 150)
    doubtful_areas: tuple[int, ...] = (0, 60, 90, 120, 150, 200, 300)


def space_of(names: Sequence[str]) -> SearchSpace:
    """The usual values of these parameters only; all others stay as they are.

    Raises:
        CellSegError: a name is not one of the attributes of :class:`SearchSpace`.
    """
    known = [field.name for field in fields(SearchSpace)]
    if unknown := [name for name in names if name not in known]:
        raise CellSegError(f"{unknown[0]!r} is not one of the searched parameters: {', '.join(known)}")
    return SearchSpace(**{name: () for name in known if name not in names})


class _OutOfTrials(Exception):
    pass


def _changed(params: PostprocessParams, name: str, value: Any) -> PostprocessParams:
    return replace(params, **{name: value})


class _Search:
    """Coordinate-wise search on a grid for the highest mean score over ``images``."""

    def __init__(
        self, images: Sequence[ImageTrials], space: SearchSpace, trials: int, on_trial: Callable[[], object] | None
    ):
        self._images = images
        self._space = space
        self._left = trials
        self._on_trial = on_trial

    def run(self, params: PostprocessParams) -> PostprocessParams:
        self.best = params
        # Values of a class that no image has cannot be told from each other.
        self._classes = sorted({index for image in self._images for index in image.classes(params.vote)})
        try:
            for _ in range(_ROUNDS):
                before = self.best
                for field in fields(self._space):
                    self._improve(field.name)
                if self.best == before:
                    break
        except _OutOfTrials:
            pass
        return self.best

    def _mean(self, params: PostprocessParams) -> float:
        if self._left <= 0:
            raise _OutOfTrials
        self._left -= 1
        if self._on_trial is not None:
            self._on_trial()
        return float(np.mean([image.score(params) for image in self._images]))

    def _improve(self, name: str) -> None:
        if name in PER_CLASS or name == "mask_offset":
            for index in self._classes if name in PER_CLASS else (0, 1):
                self.best = self._along(self.best, name, index)
        elif name in _THRESHOLDS_OF:
            for value in getattr(self._space, name):
                other = _changed(self.best, name, value)
                for index in self._classes if other != self.best else ():
                    other = self._along(other, _THRESHOLDS_OF[name], index)
                if other != self.best and self._mean(other) > self._mean(self.best) + _LEAST_GAIN:
                    self.best = other
        else:
            self.best = self._along(self.best, name)

    def _along(self, params: PostprocessParams, name: str, index: int | None = None) -> PostprocessParams:
        """The best along one parameter, or one of its values; ``params`` unless there is a gain."""
        grid = getattr(self._space, name)
        values = getattr(params, name)
        current = values if index is None else values[index]
        if not grid:
            return params
        grid = sorted({*grid, current}) if isinstance(current, int | float) else [*dict.fromkeys((current, *grid))]

        def moved(value: object) -> PostprocessParams:
            return _changed(params, name, value if index is None else (*values[:index], value, *values[index + 1 :]))

        scores = smooth = np.array([self._mean(moved(value)) for value in grid])
        if isinstance(current, int | float) and not isinstance(current, bool):
            # A broad maximum is likelier to be there on other images than a narrow one.
            padded = np.pad(scores, 1, mode="edge")
            smooth = (padded[:-2] + 2 * scores + padded[2:]) / 4
        ties = np.flatnonzero(smooth >= smooth.max() - 1e-12)
        best, now = int(ties[len(ties) // 2]), grid.index(current)
        # Neither the curve nor the images themselves may lose.
        gain = min(smooth[best] - smooth[now], scores[best] - scores[now])
        return moved(grid[best]) if gain > _LEAST_GAIN else params


def search(
    images: Sequence[ImageTrials],
    start: PostprocessParams,
    num_classes: int,
    space: SearchSpace | None = None,
    trials: int = 1000,
    on_trial: Callable[[], object] | None = None,
) -> PostprocessParams:
    """Improve one parameter after the other, in at most four rounds, until none can be.

    Args:
        images: at least one.
        start: where to begin. Its ``vote`` is kept.
        num_classes: number of classes of the model; the result has one value for each where ``PostprocessParams``
            allows it.
        space: the values to try.
        trials: how many settings are tried at most.
        on_trial: called before each.

    Returns:
        The setting with the highest mean score that was found, curves over numbers smoothed; ``start`` when nothing is
        better.
    """
    return _Search(images, space or SearchSpace(), trials, on_trial).run(expand(start, num_classes))


def expand(params: PostprocessParams, num_classes: int) -> PostprocessParams:
    """The same, with one value for each class where one stood for all."""
    values = {name: getattr(params, name) for name in PER_CLASS}
    return replace(params, **{name: v * num_classes if len(v) == 1 else v for name, v in values.items()})


class TuningRow(NamedTuple):
    """Mean scores over the images of one type: with the start's values, with those fitted to these images, and held
    out; mean and standard deviation over the folds of the held-out gain; the deviation is NaN for a single fold."""

    cell_type: str
    images: int
    default: float
    fitted: float
    held_out: float
    gain: float
    spread: float


@dataclass(frozen=True, eq=False)
class TuningResult:
    """What :func:`tune` found.

    Attributes:
        start, params: before, and fitted to all images.
        fold_params: fitted to all but the images of one fold, ``K``.
        names, types: names and types of the ``N`` images; the type is None where it is unknown.
        folds: int64 ``(N,)``, in which each image was held out.
        default, fitted, held_out: float64 ``(N,)``, the score of each image with ``start``, with ``params``, and with
            the ``fold_params`` that were found without it.
    """

    start: PostprocessParams
    params: PostprocessParams
    fold_params: list[PostprocessParams]
    names: list[str]
    types: list[str | None]
    folds: np.ndarray
    default: np.ndarray
    fitted: np.ndarray
    held_out: np.ndarray

    def rows(self) -> list[TuningRow]:
        """One for each type, in alphabetical order, and one for all images."""
        kinds = sorted({kind for kind in self.types if kind is not None})
        own = {kind: np.array([other == kind for other in self.types]) for kind in kinds}
        return [self._row(kind, mask) for kind, mask in own.items()] + [self._row("all", self.folds >= 0)]

    def _row(self, name: str, mask: np.ndarray) -> TuningRow:
        gain = (self.held_out - self.default)[mask]
        means = [gain[self.folds[mask] == fold].mean() for fold in np.unique(self.folds[mask])]
        spread = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
        default, fitted, held_out = (float(own[mask].mean()) for own in (self.default, self.fitted, self.held_out))
        return TuningRow(name, int(mask.sum()), default, fitted, held_out, float(gain.mean()), spread)

    def table(self) -> str:
        """The rows as aligned text."""
        headers = ["cell type", "images", "default", "tuned, fitted", "tuned, held out", "held-out gain"]
        rows = [
            (*row[:5], f"{row.gain:+.4f}" + ("" if np.isnan(row.spread) else f" ± {row.spread:.4f}"))
            for row in self.rows()
        ]
        return tabulate(rows, headers, floatfmt=".4f", disable_numparse=[5], colalign=("left",) + ("right",) * 5)

    def changes(self, class_names: Sequence[str]) -> str:
        """The parameters that differ from the start's, as aligned text, with the range over the folds."""
        rows = []
        for field in fields(PostprocessParams):
            old, new = getattr(expand(self.start, len(class_names)), field.name), getattr(self.params, field.name)
            folds = [getattr(params, field.name) for params in self.fold_params]
            parts = {"mask_offset": ("right", "down")} | dict.fromkeys(PER_CLASS, class_names)
            if field.name not in parts:
                old, new, folds = (old,), (new,), [(value,) for value in folds]
            for i, (before, after) in enumerate(zip(old, new, strict=True)):
                label = f"{field.name}, {parts[field.name][i]}" if field.name in parts else field.name
                seen = sorted({values[i] for values in folds}, key=str)
                if before != after or seen != [before]:
                    rows.append((label, str(before), str(after), ", ".join(map(str, seen))))
        return tabulate(rows, ["parameter", "default", "tuned", "in the folds"], disable_numparse=True)


def tune(
    images: Mapping[str, ImageTrials],
    num_classes: int,
    *,
    start: PostprocessParams | None = None,
    types: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    space: SearchSpace | None = None,
    folds: int = 5,
    trials: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> TuningResult:
    """Fit the post-processing to all images, and measure the fit by cross-validation.

    Args:
        images: by name.
        num_classes: number of classes of the model.
        start: the values to begin with and to compare with.
        types: cell type by image name: folds are stratified by it, and scores reported.
        groups: what images that look alike have in common, by name; they are held out together. By default, each image
            is on its own.
        space, trials: see :func:`search`.
        folds: at least 2.
        seed: seed of the split.
        progress: whether to show a bar.

    Raises:
        CellSegError: there are fewer images, or groups, than folds.
    """
    types, groups, start = types or {}, groups or {}, start or PostprocessParams()
    names = list(images)
    if folds < 2:
        raise CellSegError(f"a cross-validation needs at least 2 folds, not {folds}")
    if len({groups.get(name, name) for name in names}) < folds:
        raise CellSegError(f"{len(names)} images, or groups of them, are too few for {folds} folds; give fewer folds")
    # Two kinds of keys keep a group's name apart from an image's.
    units = [("group", groups[name]) if name in groups else ("image", name) for name in names]
    part = split_groups(units, [types.get(name, "") for name in names], [1 / folds] * folds, seed)

    expected = 2 * sum(len(getattr(space or SearchSpace(), f.name)) for f in fields(SearchSpace)) * num_classes
    with track(None, "tuning", "trial", (folds + 1) * expected, shown=progress) as bar:

        def fit(keep: np.ndarray, number: int) -> PostprocessParams:
            def on_trial() -> None:
                bar.update(bar.n < (number + 1) * expected - 1)

            chosen = [images[name] for name, own in zip(names, keep, strict=True) if own]
            found = search(chosen, start, num_classes, space, trials, on_trial)
            bar.update((number + 1) * expected - bar.n)
            return found

        params = fit(part >= 0, 0)
        fold_params = [fit(part != fold, fold + 1) for fold in range(folds)]
    return TuningResult(
        start=start,
        params=params,
        fold_params=fold_params,
        names=names,
        types=[types.get(name) for name in names],
        folds=part,
        default=np.array([images[name].score(start) for name in names]),
        fitted=np.array([images[name].score(params) for name in names]),
        held_out=np.array([images[name].score(fold_params[k]) for name, k in zip(names, part, strict=True)]),
    )
