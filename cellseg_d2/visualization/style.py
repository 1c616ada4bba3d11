"""How pictures of cells are drawn, and the parts of them that users choose: colours, numbers, a scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.overlays import distinct_colors, font, type_color

# The longest scale bar, as a share of the picture's width.
_LONGEST = 0.25


@dataclass(frozen=True)
class Style:
    """How a picture of segmented cells is drawn.

    Attributes:
        by_cell: a colour a cell, other than its neighbours', instead of one a class.
        numbers: each cell has its number, ``label`` in tables and the value in label images.
        scale_bar: a bar with its length stands in the lower right corner; the size of a pixel must be known.
        header: a strip with name and counts is above a PNG.
    """

    by_cell: bool = False
    numbers: bool = False
    scale_bar: bool = False
    header: bool = True

    def colors(self, crops: Sequence[MaskCrop], types: Sequence[str], known: Sequence[str]) -> np.ndarray:
        """The colours of cells, uint8 ``(N, 3)``.

        Args:
            crops: N masks.
            types: the class of each.
            known: all classes, so that each looks the same in every image.
        """
        if self.by_cell:
            return distinct_colors(crops)
        lookup = {name: type_color(name, known) for name in known}
        return np.array([lookup[name] for name in types], dtype=np.uint8).reshape(-1, 3)

    def labels(self, count: int) -> list[str] | None:
        """What is written on the cells; None if nothing is."""
        return [str(number) for number in range(1, count + 1)] if self.numbers else None


DEFAULT = Style()


def bar_length(width_um: float) -> float:
    """The length of a scale bar for a picture so many micrometres wide: 1, 2 or 5 times a power of ten, at most a
    quarter of it.

    Example:
        >>> [bar_length(width) for width in (704 * 0.65, 25, 4)]
        [100.0, 5.0, 1.0]
    """
    longest = width_um * _LONGEST
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9))


def bar_text(length_um: float) -> str:
    """A length with the unit that suits it."""
    if length_um >= 1000:
        return f"{length_um / 1000:g} mm"
    return f"{length_um:g} µm" if length_um >= 1 else f"{length_um * 1000:g} nm"


def draw_scale_bar(picture: np.ndarray, pixel_um: float) -> np.ndarray:
    """A picture with a scale bar, white with a dark edge, in its lower right corner.

    Args:
        picture: uint8 RGB ``(H, W, 3)``.
        pixel_um: width of its pixels in micrometres.
    """
    height, width = picture.shape[:2]
    length_um = bar_length(width * pixel_um)
    length, size = round(length_um / pixel_um), max(11, round(min(height, width) / 32))
    thick, pad = max(3, size // 4), max(6, size // 2)
    drawn = Image.fromarray(picture)
    draw = ImageDraw.Draw(drawn)
    right, bottom = width - pad, height - pad
    box = (right - length, bottom - thick, right - 1, bottom - 1)
    draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), fill=(0, 0, 0))
    draw.rectangle(box, fill=(255, 255, 255))
    middle = (right - length / 2, bottom - thick - 2)  # of the text's lower edge, which is that of "µ"
    text: dict[str, Any] = {
        "font": font(size),
        "anchor": "md",
        "fill": (255, 255, 255),
        "stroke_width": 1,
        "stroke_fill": (0, 0, 0),
    }
    draw.text(middle, bar_text(length_um), **text)
    return np.array(drawn)
