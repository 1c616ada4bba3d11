"""Draw a prediction beside the truth, with hits, misses and false positives in different colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.metrics.competition import mask_iou, match_at
from cellseg_d2.visualization.overlays import RGB, STRIP_BACKGROUND, check_inside, draw_outlines, text_strip

# Hits differ from errors in lightness and fill as well as in hue, so the picture reads without any sense of colour.
MATCHED: RGB = (60, 225, 170)
FALSE_POSITIVE: RGB = (255, 120, 20)
MISSED: RGB = (235, 75, 225)
MATCH_IOU = 0.5


def match_crops(
    truth: Sequence[MaskCrop], prediction: Sequence[MaskCrop], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which cells find a partner, one-to-one, with IoU > 0.5.

    Args:
        truth, prediction: T and P masks of one image of ``height`` × ``width`` pixels.

    Returns:
        ``found``, bool ``(T,)``, and ``right``, bool ``(P,)``; both have the same number of True.
    """
    found, right = np.zeros(len(truth), bool), np.zeros(len(prediction), bool)
    if len(truth) and len(prediction):
        iou = mask_iou(
            [crop_to_coco(crop, height, width) for crop in prediction],
            [crop_to_coco(crop, height, width) for crop in truth],
        )
        matches = match_at(iou, MATCH_IOU)
        right[matches.pred] = True
        found[matches.true] = True
    return found, right


def comparison_panel(
    image: np.ndarray,
    truth: Sequence[MaskCrop],
    prediction: Sequence[MaskCrop],
    title: str,
    score: float | None = None,
    *,
    upscale: int = 2,
    thickness: int = 2,
) -> np.ndarray:
    """Image, truth and prediction side by side, coloured by whether cells were found (IoU > 0.5, one-to-one).

    In the truth, found cells are green and missed ones magenta; in the prediction, hits are green and false positives
    orange. Errors are filled more densely than hits.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)``, uint8 or uint16.
        truth, prediction: masks of the image.
        title: for the strip on top, for example the image's name and cell type.
        score: the image's competition score, 0 … 1, if known.
        upscale, thickness: as in :func:`cellseg_d2.visualization.overlays.draw_outlines`.

    Returns:
        ``(h, w, 3)`` uint8 RGB, with ``w`` somewhat more than ``3 * W * upscale``.
    """
    height, width = np.shape(image)[:2]
    check_inside([*truth, *prediction], height, width)
    found, right = match_crops(truth, prediction, height, width)

    def drawn(crops: Sequence[MaskCrop], good: np.ndarray, error_color: RGB) -> np.ndarray:
        colors = np.where(good[:, None], np.array(MATCHED), np.array(error_color))
        fills = np.where(good, 0.18, 0.45)
        return draw_outlines(image, crops, colors, thickness=thickness, fill=fills, upscale=upscale)

    hits, missed, false = int(found.sum()), int((~found).sum()), int((~right).sum())
    columns = [
        (draw_outlines(image, [], upscale=upscale), "image"),
        (drawn(truth, found, MISSED), f"truth: {_cells(len(truth))}"),
        (drawn(prediction, right, FALSE_POSITIVE), f"prediction: {_cells(len(prediction))}"),
    ]
    gap = max(2, width * upscale // 120)
    text_size = max(11, round(width * upscale / 31))
    spacer = np.full((1, gap, 3), STRIP_BACKGROUND, np.uint8)
    blocks: list[np.ndarray] = []
    for picture, caption in columns:
        block = np.concatenate([text_strip(picture.shape[1], caption, text_size=text_size), picture])
        blocks += [np.repeat(spacer, len(block), axis=0), block] if blocks else [block]
    body = np.concatenate(blocks, axis=1)
    legend: list[tuple[str, RGB | None]] = [(f"score {score:.3f}", None)] if score is not None else []
    legend += [
        (f"matched {hits}", MATCHED),
        (f"missed {missed}", MISSED),
        (f"false positive {false}", FALSE_POSITIVE),
        ("(matched: IoU > 0.5)", None),
    ]
    return np.concatenate([text_strip(body.shape[1], title, legend, round(text_size * 1.2)), body])


def _cells(count: int) -> str:
    return f"{count} cell" + ("" if count == 1 else "s")


def contact_sheet(panels: Sequence[np.ndarray], columns: int = 1, max_width: int | None = None) -> np.ndarray:
    """Pictures in a grid, row by row; smaller ones are padded at the right and at the bottom.

    Args:
        panels: ``(h, w, 3)`` uint8 RGB, sizes may differ.
        columns: pictures per row.
        max_width: shrink the sheet to this width in pixels if it is wider.

    Raises:
        CellSegError: there is no picture, or ``columns`` is less than 1.
    """
    if not len(panels) or columns < 1:
        raise CellSegError(f"a contact sheet needs pictures and columns, but has {len(panels)} and {columns}")
    columns = min(columns, len(panels))
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    heights = [max(panel.shape[0] for panel in row) for row in rows]
    gap = max(4, max(widths) // 100)
    sheet = np.full((sum(heights) + gap * (len(rows) - 1), sum(widths) + gap * (columns - 1), 3), STRIP_BACKGROUND)
    sheet = sheet.astype(np.uint8)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for panel, width in zip(row, widths, strict=False):
            sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
            left += width + gap
        top += height + gap
    if max_width is not None and sheet.shape[1] > max_width:
        size = (max_width, max(1, round(sheet.shape[0] * max_width / sheet.shape[1])))
        sheet = cv2.resize(sheet, size, interpolation=cv2.INTER_AREA)
    return sheet
