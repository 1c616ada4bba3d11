"""Draw the output of a dense branch beside the cells that are made of it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from cellseg_d2.detections.dense import DenseMaps
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.comparison import contact_sheet
from cellseg_d2.visualization.overlays import draw_outlines, text_strip


def field_colors(field: np.ndarray) -> np.ndarray:
    """Directions as hues and lengths as brightness, full at 1: red points right, then yellow-green down, cyan left.

    Args:
        field: float ``(2, H, W)``, x and y.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    angle = np.rad2deg(np.arctan2(field[1], field[0])) % 360
    length = np.clip(np.hypot(*field), 0, 1)
    hsv = np.stack([angle / 2, np.full_like(angle, 255), 255 * length], axis=2)  # OpenCV's hues are halves of degrees
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def field_sheet(
    image: np.ndarray, maps: DenseMaps, crops: Sequence[MaskCrop], title: str, columns: int = 4
) -> np.ndarray:
    """An image, the foreground's probability, the field where that is above one half, and the cells.

    Args:
        image: as in :func:`cellseg_d2.visualization.overlays.to_display`, ``(H, W)``.
        maps: output of the dense branch for the image, of any size.
        crops: its cells.
        title: for the strip on top.
        columns: pictures in a row.

    Returns:
        ``(h, w, 3)`` uint8 RGB.
    """
    height, width = image.shape

    def enlarged(map_: np.ndarray) -> np.ndarray:
        return cv2.resize(map_, (width, height), interpolation=cv2.INTER_NEAREST)

    grey = np.repeat((255 * maps.foreground).astype(np.uint8)[:, :, None], 3, axis=2)
    pictures = {
        "image": draw_outlines(image, [], upscale=1),
        "in a cell": enlarged(grey),
        "direction of its centre": enlarged(field_colors(maps.flow * (maps.foreground >= 0.5))),
        f"{len(crops)} cell{'' if len(crops) == 1 else 's'}": draw_outlines(image, crops, fill=0.35, upscale=1),
    }
    size = max(11, width // 28)
    panels = [np.concatenate([text_strip(width, name, text_size=size), own]) for name, own in pictures.items()]
    sheet = contact_sheet(panels, columns)
    return np.concatenate([text_strip(sheet.shape[1], title, text_size=round(1.2 * size)), sheet])
