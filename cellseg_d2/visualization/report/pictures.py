"""Convert images and outlines to the forms that a web page embeds: data URIs and SVG paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping

import cv2
import numpy as np
from PIL import Image

from cellseg_d2.images.read import read_image
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop
from cellseg_d2.visualization.overlays import check_inside, to_display
from cellseg_d2.visualization.report.cells import ReportImage

QUALITY = 76  # of WebP; below it the grain of phase contrast turns into blocks
TOLERANCE = 0.7  # by how many shown pixels an outline may be off, for a path of half the length


def image_data_uri(image: np.ndarray, max_width: int) -> str:
    """A WebP of an image as a data URI, its contrast stretched for the eye, no wider than ``max_width`` pixels.

    Args:
        image: as in :func:`cellseg_d2.visualization.overlays.to_display`.
        max_width: in pixels; a narrower image stays as it is.
    """
    shown = to_display(image)
    height, width = shown.shape[:2]
    if width > max_width:
        size = (max_width, max(1, round(height * max_width / width)))
        shown = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, format="WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def outline_path(crops: Iterable[MaskCrop], tolerance: float = TOLERANCE) -> str:
    """The outlines of cells as the data of one SVG path, to be filled with the rule ``nonzero``.

    An outline runs through the centres of the mask's outermost pixels, of holes likewise; the unit is a pixel, and
    ``(0, 0)`` is the centre of the first one.

    Args:
        crops: masks.
        tolerance: by how many pixels an outline may be off.

    Example:
        >>> outline_path([MaskCrop(2, 1, np.ones((3, 5), bool))])
        'M1 2l0 2 4 0 0-2z'
    """
    return "".join(_contour_path(points) for crop in crops for points in _contours(crop, tolerance))


def _contours(crop: MaskCrop, tolerance: float) -> list[np.ndarray]:
    """Closed lines ``(n, 2)`` of x and y; those of holes run the other way round."""
    if crop.area == 0:
        return []
    # RETR_CCOMP runs around outer borders and holes in opposite directions, so that `nonzero` leaves holes open.
    found, _ = cv2.findContours(
        crop.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(crop.left, crop.top)
    )
    return [cv2.approxPolyDP(points, tolerance, closed=True)[:, 0].astype(int) for points in found]


def _contour_path(points: np.ndarray) -> str:
    x, y = points[0].tolist()
    steps = [f"{dx}{'' if dy < 0 else ' '}{dy}" for dx, dy in np.diff(points, axis=0).tolist()]
    line = "".join(step if i == 0 or step.startswith("-") else f" {step}" for i, step in enumerate(steps))
    return f"M{x} {y}l{line}z" if line else f"M{x} {y}z"


def outline_layers(image: ReportImage, shown_width: int) -> dict[str, str]:
    """Paths by what became of the cells.

    ``found`` and ``missed`` are true cells, ``hit`` and ``false`` predicted ones, at IoU > 0.5; ``plain`` are
    predicted ones without a truth.

    Args:
        image: with a known size.
        shown_width: in which the picture is shown; outlines need no more detail than that.
    """
    tolerance = TOLERANCE * max(1.0, image.size[1] / shown_width)
    predicted = [coco_to_crop(rle) for rle in image.predicted]
    if image.errors is None:
        groups: Mapping[str, list[MaskCrop]] = {"plain": predicted}
    else:
        true = [coco_to_crop(rle) for rle in image.true]
        found, hit = image.errors.true_hits[:, 0], image.errors.predicted_hits[:, 0]
        groups = {
            "found": [crop for crop, good in zip(true, found, strict=True) if good],
            "missed": [crop for crop, good in zip(true, found, strict=True) if not good],
            "hit": [crop for crop, good in zip(predicted, hit, strict=True) if good],
            "false": [crop for crop, good in zip(predicted, hit, strict=True) if not good],
        }
    for crops in groups.values():
        check_inside(crops, *image.size)
    return {name: outline_path(crops, tolerance) for name, crops in groups.items()}


def picture(image: ReportImage, max_width: int) -> dict:
    """An image with its outlines, ready for JSON: ``width``, ``height``, ``src`` and ``layers``."""
    height, width = image.size
    return {
        "width": width,
        "height": height,
        "src": image_data_uri(read_image(image.path), max_width),
        "layers": outline_layers(image, max_width),
    }
