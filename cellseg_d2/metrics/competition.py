"""The competition's metric: mask IoU, one-to-one matching, TP / (TP + FP + FN) over thresholds and images.

For each IoU threshold 0.50, 0.55 … 0.95 a predicted and a true cell match when their IoU is **strictly** above it. An
image's score is the mean over the thresholds of TP / (TP + FP + FN), the whole score the mean over the images. Neither
confidence nor class enters. Masks are COCO RLE dicts (see :func:`cellseg_d2.masks.crop.crop_to_coco`) and may overlap.

Empty cases: an image without true cells scores 1 when nothing is predicted, and 0 otherwise; an image with true cells
and no prediction scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from pycocotools import mask as coco_mask
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from tabulate import tabulate

from cellseg_d2.errors import CellSegError

# Each is the double nearest to its decimal, which np.arange(0.5, 1, 0.05) does not give. An IoU is a rounded quotient
# of two integers, so one that equals a threshold exactly is the same double: strictness holds to the pixel.
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


def mask_iou(predicted: Sequence[dict], true: Sequence[dict]) -> np.ndarray:
    """Intersection over union of every predicted with every true mask.

    Args:
        predicted, true: ``P`` and ``T`` compressed COCO RLEs of images of one size.

    Returns:
        float64 ``(P, T)``, also when ``P`` or ``T`` is 0. A mask without pixels has IoU 0 with everything.

    Raises:
        CellSegError: the masks are not all of one image size.
    """
    if len(predicted) == 0 or len(true) == 0:  # pycocotools returns a list then
        return np.zeros((len(predicted), len(true)))
    sizes = {tuple(rle["size"]) for rle in (*predicted, *true)}
    if len(sizes) > 1:
        shown = " and ".join(f"{height} × {width}" for height, width in sorted(sizes)[:2])
        raise CellSegError(f"masks of one image must be of one size, but they are of {shown} pixels (height × width)")
    return coco_mask.iou(list(predicted), list(true), [0] * len(true))


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of cells that belong together.

    Attributes:
        pred, true: int64 ``(K,)``, indices of the predicted cells, ascending, and of their true cells.
    """

    pred: np.ndarray
    true: np.ndarray

    def __len__(self) -> int:
        return len(self.pred)


def match_at(iou: np.ndarray, threshold: float) -> Matches:
    """Match predicted with true cells, one to one, so that as many as possible are matched.

    Above IoU 0.5 a cell has two candidates only where masks of one side overlap each other; among several matchings of
    the same number of pairs, any is as good for the score.

    Args:
        iou: ``(P, T)``.
        threshold: a pair may match when its IoU is strictly above it.
    """
    rows, columns = np.nonzero(iou > threshold)
    if len(np.unique(rows)) < len(rows) or len(np.unique(columns)) < len(columns):
        hits = csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=iou.shape)
        partners = maximum_bipartite_matching(hits, perm_type="column")
        rows = np.flatnonzero(partners >= 0)
        columns = partners[rows]
    return Matches(rows.astype(np.int64), columns.astype(np.int64))


@dataclass(frozen=True)
class ImageScore:
    """How the predicted cells of one image compare with the true ones.

    Attributes:
        tp: matched cells at each of :data:`THRESHOLDS`.
        predicted, true: number of cells.
    """

    tp: tuple[int, ...]
    predicted: int
    true: int

    @property
    def fp(self) -> tuple[int, ...]:
        """Predicted cells without a match at each threshold."""
        return tuple(self.predicted - tp for tp in self.tp)

    @property
    def fn(self) -> tuple[int, ...]:
        """True cells without a match at each threshold."""
        return tuple(self.true - tp for tp in self.tp)

    @property
    def per_threshold(self) -> np.ndarray:
        """TP / (TP + FP + FN) at each threshold, float64 ``(10,)``; 1 when nothing is there and nothing predicted."""
        tp = np.array(self.tp)
        cells = self.predicted + self.true - tp
        return np.where(cells == 0, 1.0, tp / np.maximum(cells, 1))

    @property
    def score(self) -> float:
        """The image's score, 0…1."""
        return float(self.per_threshold.mean())


def score_image(predicted: Sequence[dict], true: Sequence[dict]) -> ImageScore:
    """Score one image.

    Args:
        predicted, true: compressed COCO RLEs of one size. Every one counts as a cell, also one without pixels.

    Example:
        >>> rle = coco_mask.encode(np.asfortranarray(np.eye(4, dtype=np.uint8)))
        >>> score_image([rle], [rle]).score
        1.0
    """
    iou = mask_iou(predicted, true)
    return ImageScore(tuple(len(match_at(iou, threshold)) for threshold in THRESHOLDS), len(predicted), len(true))


def score_types(
    predicted: Sequence[dict], predicted_types: Sequence[str], true: Sequence[dict], true_types: Sequence[str]
) -> dict[str, ImageScore]:
    """Score the cells of each type of one image, compared with those of the same type only.

    Args:
        predicted, true: compressed COCO RLEs of one size.
        predicted_types, true_types: their types, as many.

    Returns:
        The score by type, for every type that occurs on either side.
    """
    return {
        name: score_image(
            [rle for rle, own in zip(predicted, predicted_types, strict=True) if own == name],
            [rle for rle, own in zip(true, true_types, strict=True) if own == name],
        )
        for name in sorted({*predicted_types, *true_types})
    }


def summarize(
    scores: Mapping[str, ImageScore],
    cell_types: Mapping[str, str] | None = None,
    types: Mapping[str, Mapping[str, ImageScore]] | None = None,
) -> CompetitionScore:
    """Gather the scores of images.

    Args:
        scores: by image id.
        cell_types: the type of each image by its id. Images without one count in the whole but in no type.
        types: where images hold several types of cells, :func:`score_types` of each image by its id.

    Raises:
        CellSegError: there is no image.
    """
    if not scores:
        raise CellSegError("there is no image to score")
    cell_types = {image: cell_types[image] for image in scores if image in cell_types} if cell_types else {}
    of_types: dict[str, dict[str, ImageScore]] = {}
    for image, own in (types or {}).items():
        for name, score in own.items():
            of_types.setdefault(name, {})[image] = score
    return CompetitionScore(dict(scores), cell_types, of_types)


@dataclass(frozen=True)
class CompetitionScore:
    """The competition's score over images, and what it is made of; made by :func:`summarize`.

    Attributes:
        images: scores by image id, at least one.
        cell_types: type by image id, possibly not of all images.
        of_types: where images hold several types of cells, for each type the scores of the images that have it, true
            or predicted, with only its cells compared; else empty.
    """

    images: dict[str, ImageScore]
    cell_types: dict[str, str]
    of_types: dict[str, dict[str, ImageScore]] = field(default_factory=dict)

    @cached_property
    def per_image(self) -> dict[str, float]:
        """Score of each image."""
        return {image: score.score for image, score in self.images.items()}

    @property
    def mean(self) -> float:
        """The competition's score: the mean over the images."""
        return float(np.mean(list(self.per_image.values())))

    @property
    def per_threshold(self) -> dict[str, float]:
        """Mean over the images of TP / (TP + FP + FN) at each threshold, named ``"0.50"`` … ``"0.95"``."""
        means = np.mean([score.per_threshold for score in self.images.values()], axis=0)
        return {f"{threshold:.2f}": float(value) for threshold, value in zip(THRESHOLDS, means, strict=True)}

    @cached_property
    def by_type(self) -> dict[str, CompetitionScore]:
        """The same for the images of each cell type, or, with :attr:`of_types`, for its cells; alphabetical."""
        if self.of_types:
            return {name: summarize(self.of_types[name]) for name in sorted(self.of_types)}
        return {
            cell_type: summarize(
                {image: self.images[image] for image, own in self.cell_types.items() if own == cell_type}
            )
            for cell_type in sorted(set(self.cell_types.values()))
        }

    @property
    def per_cell_type(self) -> dict[str, float]:
        """Mean score of the images, or of the cells, of each type; see :attr:`by_type`."""
        return {cell_type: score.mean for cell_type, score in self.by_type.items()}

    @property
    def tp(self) -> int:
        """Cells found at IoU 0.5, over all images."""
        return sum(score.tp[0] for score in self.images.values())

    @property
    def fp(self) -> int:
        """Predicted cells that match none at IoU 0.5, over all images."""
        return sum(score.fp[0] for score in self.images.values())

    @property
    def fn(self) -> int:
        """True cells missed at IoU 0.5, over all images."""
        return sum(score.fn[0] for score in self.images.values())

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP) at IoU 0.5 over all images; None when nothing is predicted."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN) at IoU 0.5 over all images; None when there are no true cells."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def _at_half(self) -> dict[str, float | None]:
        names = ("precision", "recall", "tp", "fp", "fn")
        return {f"{name}50": getattr(self, name) for name in names}

    def metrics(self) -> dict[str, float]:
        """The figures under flat names, as Detectron2's evaluators report them.

        ``mean``, each cell type's name, ``score@0.50`` … ``score@0.95``, and at IoU 0.5 ``precision50``, ``recall50``,
        ``tp50``, ``fp50``, ``fn50``. An undefined precision or recall is NaN. A type with one of these names, or
        ``iteration``, which tables of scores also have, gets `` (type)`` after its name.
        """
        thresholds = {f"score@{threshold}": value for threshold, value in self.per_threshold.items()}
        half = {name: float("nan") if value is None else value for name, value in self._at_half.items()}
        taken = {"mean", "iteration", *thresholds, *half}
        types = {f"{name} (type)" if name in taken else name: value for name, value in self.per_cell_type.items()}
        return {"mean": self.mean, **types, **thresholds, **half}

    def to_dict(self) -> dict:
        """Everything as plain numbers, strings and dicts, ready for JSON; an undefined precision or recall is None."""
        return {
            "mean": self.mean,
            "per_cell_type": self.per_cell_type,
            "per_threshold": self.per_threshold,
            "per_image": self.per_image,
            **self._at_half,
        }

    def table(self, worst: int = 5) -> str:
        """The score as aligned text: all images and each cell type, the thresholds, the ``worst`` images."""
        rows = [
            (name, len(score.images), score.mean, *score._at_half.values())
            for name, score in [*self.by_type.items(), ("all", self)]
        ]
        headers = ["cell type", "images", "score", "precision", "recall", "TP", "FP", "FN"]
        parts = [
            tabulate(rows, headers, floatfmt=".3f", missingval="–")
            + "\n(precision, recall, TP, FP and FN at IoU > 0.5)"
        ]
        if self.of_types:
            parts[0] += (
                "\n(images hold several types: the row of a type compares its cells only, 'all' cells whatever their "
                "type)"
            )
        thresholds = [("score", *self.per_threshold.values())]
        parts.append(tabulate(thresholds, ["IoU >", *self.per_threshold], floatfmt=".3f"))
        if worst > 0 and len(self.images) > 1:
            lowest = sorted(self.per_image, key=lambda image: (self.per_image[image], image))[:worst]
            rows = [
                (image, self.cell_types.get(image, "–"), self.per_image[image], score.tp[0], score.fp[0], score.fn[0])
                for image, score in ((image, self.images[image]) for image in lowest)
            ]
            headers = ["worst images", "cell type", "score", "TP", "FP", "FN"]
            # Image ids such as 1e5514 are not numbers.
            parts.append(tabulate(rows, headers, floatfmt=".3f", disable_numparse=[0]))
        return "\n\n".join(parts)
