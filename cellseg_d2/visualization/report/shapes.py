"""Draw the map of shapes of a report's cells."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from cellseg_d2.masks.crop import coco_to_crop
from cellseg_d2.shape_space.plane import Plane
from cellseg_d2.shape_space.space import ShapeSpace
from cellseg_d2.visualization.figures import figure_png
from cellseg_d2.visualization.report.cells import ReportCells
from cellseg_d2.visualization.shape_map import shape_map

RARE = 0.01


@dataclass(frozen=True)
class ReportShapes:
    """The shapes shown in a report.

    Attributes:
        picture: a PNG as a data URI.
        cells: predicted ones on it; those that their image cuts are left out.
        rare: how many of them are less plausible than :data:`RARE`.
    """

    picture: str
    cells: int
    rare: int


def gather_shapes(space: ShapeSpace, cells: ReportCells) -> ReportShapes | None:
    """Place the predicted cells in a space of shapes, by the type of their image; None without a cell to place."""
    masks, types = [], []
    for image in cells.images:
        for rle in image.predicted or ():
            crop = coco_to_crop(rle)
            if crop.area and not crop.is_cut(*rle["size"]):
                masks.append(crop.mask)
                types.append(image.cell_type or "cell")
    if not masks:
        return None
    placed = space.place(masks)
    plane = Plane.through(space.references.latents)
    figure = shape_map(space, plane, plane.project(placed.latents), types, "Shapes of the predicted cells")
    picture = "data:image/png;base64," + base64.b64encode(figure_png(figure)).decode("ascii")
    rare = int(np.count_nonzero(space.usual.plausibility(placed) < RARE))
    return ReportShapes(picture, len(masks), rare)
