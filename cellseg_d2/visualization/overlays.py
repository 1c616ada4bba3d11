"""Draw outlines of cells over their image.

Each cell is drawn inside its own crop, so the cost grows with the cells and not with cells × image. Pictures are
``(H, W, 3)`` uint8, **RGB**. The colours follow Okabe & Ito (2008), which stay apart under the common forms of colour
blindness, lightened where they would sink into a grey image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cellseg_d2.errors import CellSegError, printable
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.io.outputs import MARK, check_pictures
from cellseg_d2.masks.crop import MaskCrop

RGB = tuple[int, int, int]

PALETTE: tuple[RGB, ...] = (
    (245, 230, 66),  # yellow
    (86, 190, 245),  # sky blue
    (255, 105, 50),  # vermilion
    (0, 205, 150),  # bluish green
    (235, 120, 200),  # reddish purple
    (95, 135, 255),  # blue
    (255, 176, 0),  # orange
)
TYPE_COLORS: dict[str, RGB] = {"shsy5y": PALETTE[0], "astro": PALETTE[1], "cort": PALETTE[2]}

STRIP_BACKGROUND: RGB = (22, 25, 31)
STRIP_TEXT: RGB = (238, 240, 243)


def to_display(image: np.ndarray, low: float = 0.3, high: float = 99.7) -> np.ndarray:
    """Stretch the contrast of an image for the eye; never for the network.

    Args:
        image: ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` (alpha is dropped), any real dtype. The
            channels are stretched together, so that hues stay.
        low, high: percentiles of the grey values that become black and white.

    Returns:
        ``(H, W, 3)`` uint8 RGB. An image of one single value becomes mid-grey.

    Raises:
        CellSegError: the array has another shape or no pixels.
    """
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or image.size == 0:
        raise CellSegError(f"an image of shape {image.shape} cannot be shown: expected (H, W), (H, W, 3) or (H, W, 4)")
    values = image[..., :3].astype(np.float32)
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        raise CellSegError("an image without a single finite value cannot be shown")
    black, white = np.percentile(finite, [low, high])
    if white <= black:  # a few bright spots on an even ground
        black, white = finite.min(), finite.max()
    if white <= black:
        shown = np.full(values.shape, 128, np.uint8)
    else:
        values = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
        shown = np.clip((values - black) * (255.0 / (white - black)) + 0.5, 0, 255).astype(np.uint8)
    return np.repeat(shown, 3, axis=2) if image.shape[2] == 1 else shown


def type_color(cell_type: str, types: Sequence[str] = ()) -> RGB:
    """The fixed colour of a cell type; a type without one takes the palette's colour of its place in ``types``."""
    if cell_type in TYPE_COLORS:
        return TYPE_COLORS[cell_type]
    others = sorted({*types, cell_type} - set(TYPE_COLORS))
    free = [color for color in PALETTE if color not in TYPE_COLORS.values()]
    return free[others.index(cell_type) % len(free)]


def type_colors(cell_types: Sequence[str]) -> np.ndarray:
    """One colour per cell by its type, uint8 ``(N, 3)``, for ``colors`` of :func:`draw_outlines`."""
    lookup = {name: type_color(name, cell_types) for name in set(cell_types)}
    return np.array([lookup[name] for name in cell_types], dtype=np.uint8).reshape(-1, 3)


def distinct_colors(crops: Sequence[MaskCrop]) -> np.ndarray:
    """One palette colour per cell, such that neighbours differ; uint8 ``(N, 3)``, the same on every call.

    Greedy: each cell takes the colour whose nearest bearer so far, by the gap between the boxes, is farthest away.
    """
    boxes = np.array([crop.box for crop in crops], dtype=np.float64).reshape(-1, 4)
    nearest = np.full((len(PALETTE), len(boxes)), np.inf)  # gap of each cell to the nearest one of each colour
    chosen = np.zeros(len(boxes), dtype=np.int64)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        color = chosen[i] = np.argmax(nearest[:, i])
        dx = np.maximum(0, np.maximum(boxes[:, 0] - x1, x0 - boxes[:, 2]))
        dy = np.maximum(0, np.maximum(boxes[:, 1] - y1, y0 - boxes[:, 3]))
        nearest[color] = np.minimum(nearest[color], np.hypot(dx, dy))
    return np.array(PALETTE, dtype=np.uint8)[chosen]


def draw_outlines(
    image: np.ndarray,
    crops: Sequence[MaskCrop],
    colors: np.ndarray | Sequence[RGB] | RGB | None = None,
    *,
    thickness: int = 2,
    fill: float | np.ndarray = 0.0,
    labels: Sequence[str] | None = None,
    upscale: int = 2,
    title: str | None = None,
) -> np.ndarray:
    """Draw the outlines of cells over an image.

    An outline lies inside its mask, on the mask's border, so that the outlines of touching cells stay apart. Large
    cells are drawn first, and therefore never hide small ones.

    Args:
        image: as in :func:`to_display`, which stretches its contrast.
        crops: N masks.
        colors: one RGB colour for all, or ``(N, 3)`` (see :func:`type_colors`); by default :func:`distinct_colors`.
        thickness: thickness of the outlines in pixels of the result.
        fill: opacity in 0 … 1 of the colour inside the cells, one or ``(N,)``.
        labels: N short texts, written at the middle of the cells.
        upscale: whole-number magnification; with 2 the outline of a cell 15 pixels wide leaves its inside visible.
        title: for a strip on top (:func:`text_strip`); none by default.

    Returns:
        ``(H * upscale, W * upscale, 3)`` uint8 RGB; higher by the strip if there is a title.

    Raises:
        CellSegError: a crop reaches outside the image, or colours, fills or labels are not as many as the crops.

    Example:
        >>> crop = MaskCrop(1, 1, np.ones((3, 3), bool))
        >>> picture = draw_outlines(np.zeros((5, 5), np.uint8), [crop], (255, 0, 0), thickness=1, upscale=1)
        >>> (picture[..., 0] == 255).astype(int)
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 1, 0, 1, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 0, 0, 0]])
    """
    shown = to_display(image)
    height, width = shown.shape[:2]
    check_inside(crops, height, width)
    colors = distinct_colors(crops) if colors is None else _per_cell(colors, len(crops), "colours", (3,))
    fills = _per_cell(fill, len(crops), "fills", ())
    if labels is not None and len(labels) != len(crops):
        raise CellSegError(f"{len(labels)} labels were given for {len(crops)} cells")
    if upscale > 1:
        shown = cv2.resize(shown, None, fx=upscale, fy=upscale, interpolation=cv2.INTER_CUBIC)

    order = sorted(range(len(crops)), key=lambda i: -crops[i].area)
    enlarged = {i: crops[i].mask.repeat(upscale, axis=0).repeat(upscale, axis=1) for i in order}
    for i in order:
        if fills[i] > 0:
            _blend(shown, crops[i], enlarged[i], upscale, colors[i], float(fills[i]))
    for i in order:  # after all fills, so that none of them tints an outline
        _blend(shown, crops[i], _outline(enlarged[i], thickness), upscale, colors[i], 1.0)
    if labels is not None:
        shown = _write_labels(shown, crops, labels, upscale)
    return shown if title is None else np.concatenate([text_strip(shown.shape[1], title), shown])


def check_inside(crops: Sequence[MaskCrop], height: int, width: int) -> None:
    """Raise a CellSegError if a crop reaches outside an image of ``height`` × ``width`` pixels."""
    for crop in crops:
        x0, y0, x1, y1 = crop.box
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            raise CellSegError(
                f"the mask at x {x0}–{x1}, y {y0}–{y1} reaches outside its image of {width} × {height} pixels; "
                "do the masks belong to this image?"
            )


def _per_cell(value: object, count: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.size == 0 and count == 0:
        return np.zeros((0, *shape))
    if array.shape not in (shape, (count, *shape)):
        raise CellSegError(f"{name} of shape {array.shape} were given for {count} cells: expected one, or one per cell")
    return np.broadcast_to(array, (count, *shape))


def _outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The pixels of a mask that are fewer than ``thickness`` steps (4-neighbours) from its outside, bool."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    if mask.size == 0:
        return mask
    inner = cv2.erode(mask.astype(np.uint8), cross, iterations=thickness, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inner == 0)


def _blend(shown: np.ndarray, crop: MaskCrop, where: np.ndarray, upscale: int, color: np.ndarray, alpha: float) -> None:
    """Mix ``color`` into the pixels ``where`` of the enlarged crop, in place."""
    top, left = crop.top * upscale, crop.left * upscale
    region = shown[top : top + where.shape[0], left : left + where.shape[1]]
    region[where] = (region[where] * (1 - alpha) + np.asarray(color, np.float64) * alpha + 0.5).astype(np.uint8)


def _write_labels(shown: np.ndarray, crops: Sequence[MaskCrop], labels: Sequence[str], upscale: int) -> np.ndarray:
    picture = Image.fromarray(shown)
    draw = ImageDraw.Draw(picture)
    face = font(max(9, 5 * upscale))
    for crop, label in zip(crops, labels, strict=True):
        if crop.area:
            x, y = (place * upscale for place in place_of_number(crop))
            draw.text(
                (x, y), label, fill=(255, 255, 255), font=face, anchor="mm", stroke_width=1, stroke_fill=(0, 0, 0)
            )
    return np.array(picture)


def place_of_number(crop: MaskCrop) -> tuple[float, float]:
    """Where the number of a cell is centred, ``(x, y)`` in pixels of the image along their edges: the mean of its
    pixels; if that is in no pixel of it, as of a crescent or a ring, the middle of the pixel farthest from its outline.
    """
    rows, columns = np.nonzero(crop.mask)
    y, x = rows.mean() + 0.5, columns.mean() + 0.5
    if not crop.mask[int(y), int(x)]:
        inside = cv2.distanceTransform(np.pad(crop.mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
        y, x = np.array(np.unravel_index(inside.argmax(), inside.shape)) + 0.5
    return float(crop.left + x), float(crop.top + y)


@lru_cache(maxsize=32)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, ``size`` pixels high; the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def text_strip(
    width: int, title: str, legend: Sequence[tuple[str, RGB | None]] = (), text_size: int | None = None
) -> np.ndarray:
    """A dark strip with a bold title, followed by legend entries that each have a patch of their colour.

    Entries that do not fit into the line go to the next one; a title too long for the strip ends in "…".

    Args:
        width: in pixels.
        title: may be empty.
        legend: pairs of text and colour; without a colour there is no patch.
        text_size: in pixels; by default in proportion to ``width``.

    Returns:
        ``(h, width, 3)`` uint8 RGB.
    """
    size = text_size or max(12, round(width / 52))
    bold, plain = font(size, bold=True), font(size)
    pad, gap, line_height = round(size * 0.6), round(size * 1.4), round(size * 1.7)
    patch = round(size * 0.8)
    entries: list[tuple[str, RGB | None, ImageFont.FreeTypeFont]] = [(title, None, bold)] if title else []
    entries += [(text, color, plain) for text, color in legend]
    placed, x, line = [], pad, 0
    for name, color, face in entries:
        text = printable(name)  # the names of files and classes may hold anything
        lead = round(patch * 1.5) if color is not None else 0
        while len(text) > 1 and face.getlength(text) > width - 2 * pad - lead:
            text = text.removesuffix("…")[:-1].rstrip() + "…"
        needed = lead + face.getlength(text)
        if x > pad and x + needed > width - pad:
            x, line = pad, line + 1
        placed.append((x, line, lead, text, color, face))
        x += round(needed) + gap
    picture = Image.new("RGB", (width, line_height * (line + 1) + pad), STRIP_BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for x, line, lead, text, color, face in placed:
        middle = pad / 2 + line_height * (line + 0.5)
        if color is not None:
            top = round(middle - patch / 2)
            draw.rectangle((x, top, x + patch - 1, top + patch - 1), fill=tuple(int(c) for c in color))
        draw.text((x + lead, middle), text, fill=STRIP_TEXT, font=face, anchor="lm")
    return np.array(picture)


def overlay_picture(
    image: np.ndarray,
    crops: Sequence[MaskCrop],
    cell_types: Sequence[str] | None = None,
    title: str = "",
    **drawing: Any,
) -> np.ndarray:
    """An image with its cells outlined, under a strip with the title and the number of cells of each type.

    Args:
        image: as in :func:`to_display`.
        crops: N masks.
        cell_types: N names, which give the colours; without them neighbours get different colours.
        title: for example the file's name.
        **drawing: passed on to :func:`draw_outlines`.

    Returns:
        ``(strip + H * upscale, W * upscale, 3)`` uint8 RGB.
    """
    if cell_types is not None and len(cell_types) != len(crops):
        raise CellSegError(f"{len(cell_types)} cell types were given for {len(crops)} cells")
    drawn = draw_outlines(image, crops, None if cell_types is None else type_colors(cell_types), **drawing)
    total = f"{len(crops)} cell" + ("" if len(crops) == 1 else "s")
    types = list(cell_types or ())
    counts = [(f"{name} {types.count(name)}", type_color(name, types)) for name in sorted(set(types))]
    return np.concatenate([text_strip(drawn.shape[1], title, [(total, None), *counts]), drawn])


def _marked() -> PngInfo:
    info = PngInfo()
    info.add_text("Software", MARK)
    return info


def save_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write an RGB picture ``(H, W, 3)`` uint8 as PNG atomically; the folder is made where needed.

    Raises:
        CellSegError: the name does not end in ``.png``, or the file cannot be written.
    """
    check_pictures([path])
    try:
        with atomic_path(path) as temporary:
            picture = Image.fromarray(np.ascontiguousarray(rgb, dtype=np.uint8))
            picture.save(temporary, compress_level=4, pnginfo=_marked())
    except OSError as error:
        raise CellSegError(f"{path} cannot be written: {error.strerror or error}") from None
