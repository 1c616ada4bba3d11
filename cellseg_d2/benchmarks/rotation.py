"""What a rotation does to masks and to the picture: stock Detectron2 against this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import detectron2.data.transforms as T
import numpy as np
from detectron2.config import get_cfg
from detectron2.utils.env import seed_all_rng
from pycocotools import mask as coco_mask
from scipy import ndimage

from cellseg_d2.config import add_cellseg_config
from cellseg_d2.data.augmentations.placement import affine_matrix, linear_map
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.data.augmentations.warp import AffineTransform
from cellseg_d2.io.progress import track
from cellseg_d2.masks.layers import LabelLayers
from cellseg_d2.metrics.competition import CompetitionScore, mask_iou, score_image, summarize

# Painted around an image whose own levels are far below. Interpolated with as little as 1 % of it, they are above them.
MARKER = 25_500.0
LEVELS = 200


@dataclass(frozen=True)
class RoundTrip:
    """Masks after a rotation and back against the originals.

    Attributes:
        score: the competition's metric, 0 … 1, mean over the images.
        iou: mean over the cells.
        cells: number of them.
    """

    score: float
    iou: float
    cells: int


def measure_round_trips(entries: Sequence[dict], seed: int = 0) -> dict[str, RoundTrip]:
    """Rotate all masks of every image by a random angle and back, on a canvas that holds the whole rotated image.

    Stock rotates each mask by ``RotationTransform`` and by its ``inverse()``, which may be off by half a pixel because
    it crops by whole ones; ``"stock, exact inverse"`` goes back by the inverse matrix instead. The new way rotates each
    label layer by :class:`AffineTransform` and its inverse. All take the nearest pixel.

    Args:
        entries: dataset dicts with COCO RLE.
        seed: seed of the angles, -180° … 180°.
    """
    rng = np.random.default_rng(seed)
    ways = {"stock": _stock_way, "stock, exact inverse": _stock_exact_way, "new": _new_way}
    scores: dict[str, dict] = {name: {} for name in ways}
    ious: dict[str, list] = {name: [] for name in ways}
    for index, entry in enumerate(track(entries, "rotated and back")):
        size = entry["height"], entry["width"]
        truth = [annotation["segmentation"] for annotation in entry["annotations"]]
        angle = float(rng.uniform(-180, 180))
        for name, way in ways.items():
            back = way(truth, size, angle)
            scores[name][str(index)] = score_image(back, truth)
            ious[name].append(np.diag(mask_iou(back, truth)))
    return {name: _summary(summarize(scores[name]), np.concatenate(ious[name])) for name in scores}


def _summary(score: CompetitionScore, iou: np.ndarray) -> RoundTrip:
    return RoundTrip(score.mean, float(iou.mean()), len(iou))


def _stock_way(masks: Sequence[dict], size: tuple[int, int], angle: float) -> list[dict]:
    there = T.RotationTransform(*size, angle, expand=True)
    both = T.TransformList([there, there.inverse()])
    back = [both.apply_segmentation(coco_mask.decode(mask)) for mask in masks]
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in back]


def _stock_exact_way(masks: Sequence[dict], size: tuple[int, int], angle: float) -> list[dict]:
    there = T.RotationTransform(*size, angle, expand=True)
    inverse = cv2.invertAffineTransform(there.rm_image)
    rotated = [there.apply_segmentation(coco_mask.decode(mask)) for mask in masks]
    back = [cv2.warpAffine(mask, inverse, size[::-1], flags=cv2.INTER_NEAREST) for mask in rotated]
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in back]


def _new_way(masks: Sequence[dict], size: tuple[int, int], angle: float) -> list[dict]:
    there = rotation_on_large_canvas(size, angle)
    both = T.TransformList([there, there.inverse()])
    return LabelLayers.from_coco(masks, *size).map_layers(both.apply_segmentation).to_coco()


def rotation_on_large_canvas(size: tuple[int, int], angle: float) -> AffineTransform:
    """Rotation of an image ``(height, width)`` by ``angle`` degrees counter-clockwise; nothing is cut off."""
    linear = linear_map(angle)
    width, height = np.ceil(np.abs(linear.T) @ np.array(size[::-1])).astype(int).tolist()
    return AffineTransform(
        affine_matrix(linear, np.array(size[::-1]) / 2, (height, width)), size, (height, width), "background"
    )


@dataclass(frozen=True)
class Outside:
    """How much of rotated samples comes from outside the image.

    Attributes:
        samples: number of draws.
        clean: share of the samples without a single pixel from outside.
        pixels: mean share of pixels from outside.
        agreeing: share of the clean samples that the transform itself renders as the independent sampling does; None
            where the picture itself was looked at.
    """

    samples: int
    clean: float
    pixels: float
    agreeing: float | None


def rotations() -> dict[str, T.Augmentation]:
    """The rotations with their shipped settings, and stock Detectron2's two."""
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.INPUT.ROTATION.ANGLE = [-180.0, 180.0]
    small = cfg.clone()
    small.INPUT.ROTATE_ZOOM_CROP.SIZE = [256, 256]
    return {
        "stock, expand=False": T.RandomRotation([-180.0, 180.0], expand=False),
        "stock, expand=True": T.RandomRotation([-180.0, 180.0], expand=True),
        "rotate_zoom_crop": AUGMENTATION_REGISTRY["rotate_zoom_crop"](cfg)[0],
        "rotate_zoom_crop, 256 × 256": AUGMENTATION_REGISTRY["rotate_zoom_crop"](small)[0],
        "rotation": AUGMENTATION_REGISTRY["rotation"](cfg)[0],
    }


def measure_outside(
    augmentations: Mapping[str, T.Augmentation], entries: Sequence[dict], draws: int, seed: int = 0
) -> dict[str, Outside]:
    """Draw rotations and look for pixels from outside the image.

    This project's are sampled a second time, by SciPy and from the matrix alone, from a ramp with a marker value all
    around it: wherever the marker enters, the outside was touched. Where it does not, the transform's own picture of
    the ramp must be the same. Stock ones paint the outside black, so white images are rotated and black is counted.

    Args:
        augmentations: by name.
        entries: dataset dicts, taken in turn, of which the size and the cells' boxes are used.
        draws: number of draws of each augmentation.
        seed: seed of the draws.
    """
    results = {}
    for name, augmentation in augmentations.items():
        seed_all_rng(seed)
        shares, agreements = [], []
        for draw in track(range(draws), name, "draw"):
            entry = entries[draw % len(entries)]
            ramp = _ramp((entry["height"], entry["width"]))
            boxes = np.array([annotation["bbox"] for annotation in entry["annotations"]], dtype=np.float64)
            boxes[:, 2:] += boxes[:, :2]  # XYWH to XYXY
            transform = augmentation(T.AugInput(ramp, boxes=boxes))
            if not isinstance(transform, AffineTransform):
                shares.append(float((transform.apply_image(np.full_like(ramp, 255)) == 0).mean()))
                continue
            independent = sample_with_marker(ramp, transform.matrix, transform.output_size)
            touched = independent > LEVELS + 1
            shares.append(float(touched.mean()))
            if not touched.any():
                difference = np.abs(transform.apply_image(ramp) - independent)
                agreements.append(bool(difference.max() <= 1.0))
        agreeing = float(np.mean(agreements)) if agreements else None
        results[name] = Outside(draws, float(np.mean(np.array(shares) == 0)), float(np.mean(shares)), agreeing)
    return results


def _ramp(size: tuple[int, int]) -> np.ndarray:
    """uint8 ``(H, W)`` from 0 to ``LEVELS``, rising to the right and downwards: each place has its own level."""
    y, x = (np.linspace(0, LEVELS / 2, length) for length in size)
    return np.rint(y[:, None] + x[None, :]).astype(np.uint8)


def sample_with_marker(image: np.ndarray, matrix: np.ndarray, output_size: tuple[int, int]) -> np.ndarray:
    """What an affine map fetches from an image that is surrounded by :data:`MARKER`, float64 ``output_size``.

    Args:
        image: ``(H, W)``.
        matrix: ``(2, 3)``, output ``(x, y)`` → input, pixel centres at +0.5.
        output_size: ``(height, width)``.
    """
    y, x = np.mgrid[: output_size[0], : output_size[1]] + 0.5
    column, row = (a * x + b * y + c - 0.5 for a, b, c in matrix)
    # Places on the outermost centres may be beyond them by a rounding error.
    row, column = (
        np.where(np.abs(p - p.clip(0, n - 1)) < 1e-6, p.clip(0, n - 1), p)
        for p, n in zip((row, column), image.shape, strict=True)
    )
    return ndimage.map_coordinates(image.astype(float), [row, column], order=1, mode="grid-constant", cval=MARKER)
