"""Convert one segmentation of a COCO JSON, in any form that tools write, to compressed RLE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from cellseg_d2.masks.rle import RLEError, decode_coco, encode_coco

# Outlines drawn along an image's border lie up to one pixel outside; rasterising cuts that off.
POLYGON_TOLERANCE = 1.0
# Rasterising takes memory in proportion to an outline's length; no cell's is a million pixels long.
MAX_OUTLINE = 1e6


def to_rle(segmentation: object, height: int, width: int) -> tuple[dict, float]:
    """COCO RLE of a segmentation in any of COCO's forms.

    Args:
        segmentation: polygons ``[[x, y, x, y, …], …]`` in pixels, which are rasterised as pycocotools does, or an RLE
            dict, with ``counts`` compressed or not. One polygon may stand without the outer list, its points may be
            pairs ``[[x, y], [x, y], …]``, and an RLE's ``size`` may be missing.
        height, width: size of the image in pixels.

    Returns:
        The RLE, compressed and checked, and by how many pixels polygons leave the image, 0 within
        :data:`POLYGON_TOLERANCE`.

    Raises:
        RLEError: it is neither, or damaged.
    """
    if isinstance(segmentation, Mapping):
        return _checked(segmentation, height, width), 0.0
    if not isinstance(segmentation, list) or not segmentation:
        raise RLEError("it has no segmentation")
    polygons = [segmentation] if not isinstance(segmentation[0], list) or _are_pairs(segmentation) else segmentation
    outlines = [_outline(polygon) for polygon in polygons]
    outside = max(float(max((-points).max(), (points - (width, height)).max())) for points in outlines)
    rle = coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist() for points in outlines], height, width))
    rle["counts"] = rle["counts"].decode("ascii")
    return rle, outside if outside > POLYGON_TOLERANCE else 0.0


def rles_of(annotations: Iterable[Mapping], height: int, width: int) -> list[dict]:
    """The masks of annotations of a Detectron2 dataset dict: polygons are rasterised, compressed RLE stays as it is.

    Raises:
        RLEError: one has no mask, or a damaged one.
    """
    found = (annotation.get("segmentation") for annotation in annotations)
    return [
        s if isinstance(s, dict) and not isinstance(s["counts"], list) else to_rle(s, height, width)[0] for s in found
    ]


def _checked(rle: Mapping, height: int, width: int) -> dict:
    rle = {"size": [height, width], **rle}
    size = rle.get("size")
    if isinstance(size, list | tuple) and "counts" in rle and tuple(size) != (height, width):
        raise RLEError(f"its run lengths are for {size[::-1]} pixels, but the image has {[width, height]}")
    runs = decode_coco(rle)
    return encode_coco(runs, height, width) if isinstance(rle["counts"], list) else dict(rle)


def _are_pairs(polygon: list) -> bool:
    return len(polygon) > 2 and all(isinstance(point, list | tuple) and len(point) == 2 for point in polygon)


def _outline(polygon: Any) -> np.ndarray:
    """A polygon's corners ``(N, 2)`` float64, x and y in pixels."""
    if isinstance(polygon, list) and _are_pairs(polygon):
        polygon = [value for point in polygon for value in point]
    numbers = isinstance(polygon, list) and all(type(x) in (int, float) and abs(x) <= MAX_OUTLINE for x in polygon)
    if not numbers or len(polygon) % 2 or len(polygon) < 6:
        raise RLEError("its polygon is not a list of x, y pairs, at least three of them, each a position in an image")
    points = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    length = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if length > MAX_OUTLINE:
        raise RLEError(f"its polygon's outline is {length:,.0f} pixels long, which no cell's is")
    return points
