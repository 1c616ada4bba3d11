"""Measurements of cells as a table: place, size, shape and grey values, one row a cell.

Shapes are measured by scikit-image on each cell's own crop, so that time and memory go with the cells and not with
cells × image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import regionprops

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.masks.crop import MaskCrop

PLACE = ("centroid_x_px", "centroid_y_px", "box_x0_px", "box_y0_px", "box_x1_px", "box_y1_px")
SHAPE = (
    "area_px",
    "perimeter_px",
    "equivalent_diameter_px",
    "major_axis_px",
    "minor_axis_px",
    "orientation_deg",
    "eccentricity",
    "solidity",
)
GREY = ("intensity_mean", "intensity_min", "intensity_max", "intensity_std")
# Lengths in pixels that are also given in micrometres; both sides of a pixel count in them.
LENGTHS = ("perimeter", "equivalent_diameter", "major_axis", "minor_axis")
WHOLE = ("area_px", "box_x0_px", "box_y0_px", "box_x1_px", "box_y1_px")


def measure_cells(
    crops: Sequence[MaskCrop],
    image: np.ndarray | None = None,
    pixel_size: PixelSize | None = None,
    *,
    classes: Sequence[str] | None = None,
    scores: Sequence[float] | np.ndarray | None = None,
) -> pd.DataFrame:
    """Measure cells.

    Args:
        crops: ``N`` masks of at least one pixel, inside the image.
        image: grey ``(H, W)``; without it nothing is said about grey values.
        pixel_size: adds the columns in micrometres.
        classes: ``N`` names, for the column ``class``.
        scores: ``(N,)``, for the column ``score``.

    Returns:
        ``N`` rows with the columns

        - ``label``: 1 … N, the value in the label image; ``class`` and ``score`` if they are given;
        - ``centroid_x_px``, ``centroid_y_px``: mean position of the pixels, the middle of the image's first pixel being
          (0.5, 0.5), as in :mod:`cellseg_d2.masks.polygons`;
        - ``box_x0_px`` … ``box_y1_px``: the bounding box, its end exclusive;
        - ``area_px``: number of pixels;
        - ``perimeter_px``: by Crofton's formula in four directions; of discs of 12 pixels radius or more within 2 %, of
          smaller ones up to 10 % too much;
        - ``equivalent_diameter_px``: of the disc of the same area;
        - ``major_axis_px``, ``minor_axis_px``: full axes of the ellipse of the same second moments, 0 across a line one
          pixel wide;
        - ``orientation_deg``: of the major axis, counted as ImageJ does: from the x axis, counter-clockwise as seen on
          the screen, 0 ≤ … < 180; it says nothing where both axes are equal;
        - ``eccentricity``: of that ellipse, 0 for a circle, towards 1 for a line;
        - ``solidity``: area over that of the convex hull;
        - ``intensity_mean``, ``…_min``, ``…_max``, ``…_std``: of the image's own grey values;
        - with a pixel size also ``centroid_x_um``, ``centroid_y_um``, ``area_um2``, ``equivalent_diameter_um``,
          ``major_axis_um``, ``minor_axis_um``, and ``perimeter_um``, which is empty (NaN) where pixels are not square.

    Raises:
        CellSegError: a crop is empty or reaches outside the image, or classes or scores are not as many as the crops.

    Example:
        >>> table = measure_cells([MaskCrop(2, 4, np.ones((3, 6), bool))], pixel_size=PixelSize(0.5, 0.5))
        >>> table.loc[0, ["centroid_x_px", "area_px", "area_um2", "orientation_deg"]].tolist()
        [7.0, 18.0, 4.5, 0.0]
    """
    for name, values in (("classes", classes), ("scores", scores)):
        if values is not None and len(values) != len(crops):
            raise CellSegError(f"{len(values)} {name} were given for {len(crops)} cells")
    names = PLACE + SHAPE + (GREY if image is not None else ())
    rows = np.array([_measure(crop, image) for crop in crops], dtype=np.float64).reshape(-1, len(names))
    table = pd.DataFrame(rows, columns=list(names)).astype(dict.fromkeys(WHOLE, np.int64))
    if pixel_size is not None:
        _add_micrometres(table, crops, pixel_size)
    if scores is not None:
        table.insert(0, "score", np.asarray(scores, dtype=np.float64))
    if classes is not None:
        table.insert(0, "class", list(classes))
    table.insert(0, "label", np.arange(1, len(crops) + 1))
    return table


def _measure(crop: MaskCrop, image: np.ndarray | None) -> list[float]:
    """The columns ``PLACE``, ``SHAPE`` and, of an image, ``GREY``."""
    crop = crop.tight()
    if crop.mask.size == 0:
        raise CellSegError("a cell without pixels cannot be measured; remove it first")
    x0, y0, x1, y1 = crop.box
    if min(x0, y0) < 0 or (image is not None and (y1 > image.shape[0] or x1 > image.shape[1])):
        raise CellSegError(f"the mask at x {x0}–{x1}, y {y0}–{y1} reaches outside its image")
    region = _region(crop, image)
    y, x = region.centroid
    shape = [
        region.area,
        region.perimeter_crofton,
        region.equivalent_diameter_area,
        region.axis_major_length,
        region.axis_minor_length,
        # scikit-image counts from the y axis, which points down.
        (np.rad2deg(region.orientation) + 90) % 180,
        region.eccentricity,
        region.solidity,
    ]
    grey = [] if image is None else [getattr(region, name) for name in GREY]
    return [x0 + x + 0.5, y0 + y + 0.5, x0, y0, x1, y1, *shape, *grey]


def _region(crop: MaskCrop, image: np.ndarray | None = None, spacing: tuple[float, float] = (1, 1)) -> Any:
    """The properties of a mask; scikit-image does not export their type."""
    own = None if image is None else image[crop.slices]
    return regionprops(crop.mask.view(np.uint8), own, spacing=spacing)[0]


def _add_micrometres(table: pd.DataFrame, crops: Sequence[MaskCrop], size: PixelSize) -> None:
    """Add the columns in micrometres, each after the one in pixels."""
    micrometres = {
        "centroid_x_um": table["centroid_x_px"] * size.x_um,
        "centroid_y_um": table["centroid_y_px"] * size.y_um,
        "area_um2": table["area_px"] * size.area_um2,
    }
    side = np.sqrt(size.area_um2)
    micrometres |= {f"{name}_um": table[f"{name}_px"] * side for name in LENGTHS}
    if not size.is_square:  # lengths depend on the direction
        regions = [_region(crop, spacing=(size.y_um, size.x_um)) for crop in crops]
        micrometres["major_axis_um"] = [region.axis_major_length for region in regions]
        micrometres["minor_axis_um"] = [region.axis_minor_length for region in regions]
        micrometres["perimeter_um"] = np.nan
    for name, values in micrometres.items():
        pixels = name.replace("_um2", "_px").replace("_um", "_px")
        table.insert(table.columns.get_loc(pixels) + 1, name, values)
