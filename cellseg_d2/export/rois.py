"""Write ROI sets for ImageJ and Fiji: a ZIP of ROIs that the ROI Manager opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from roifile import ROI_TYPE, ImagejRoi, roiwrite

from cellseg_d2.datasets.imagej_rois import CLASS, plain_name
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import FORMATS
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.masks.polygons import Polygon
from cellseg_d2.visualization.overlays import type_color

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation

# ImageJ keeps positions as 16-bit numbers, and those beyond this as negative ones.
_LARGEST_POSITION = 60_535


@FORMATS.register("rois", suffix="_rois.zip", summary="ROI set (ZIP) for the ROI Manager of ImageJ and Fiji")
def write_rois(path: str | Path, segmentation: Segmentation, position: int = 0) -> None:
    """Write each cell as a ROI that covers its very pixels in ImageJ: its area and its grey values are the cell's.

    A cell whose outline is one ring becomes a traced ROI, one with holes or several pieces a composite ROI. ROIs are
    called by label and class, such as ``0012 cort``, have the colour of their class, and as properties their
    score and a class that no file in a ZIP can be called by. They are in no ROI group, since ImageJ would put the
    group's colour in place of the class's. Without cells the ZIP is empty.

    Args:
        path: path of the ZIP.
        segmentation: the cells.
        position: slice of a stack to which the ROIs belong, from 1 on; with 0 they show on all.

    Raises:
        CellSegError: the image is larger than ImageJ's ROIs can be.
    """
    if max(segmentation.height, segmentation.width) > _LARGEST_POSITION:
        raise CellSegError(
            f"ROIs of ImageJ reach to {_LARGEST_POSITION} pixels only, but the image has {segmentation.width} × "
            f"{segmentation.height}; write it as labels or geojson instead"
        )
    digits = max(4, len(str(len(segmentation))))
    rois = []
    cells = zip(
        segmentation.outlines,
        segmentation.cell_types,
        segmentation.scores.tolist(),
        strict=True,
    )
    for number, (polygons, kind, score) in enumerate(cells, start=1):
        roi = _roi(polygons)
        roi.name = f"{number:0{digits}d} {plain_name(kind)}"
        roi.position = position
        roi.stroke_color = bytes((255, *type_color(kind, segmentation.class_names)))  # ARGB
        roi.props = f"score: {score:.7g}\n"
        if plain_name(kind) != kind:
            roi.props += f"{CLASS}: {quote(kind, safe='')}\n"
        rois.append(roi)
    with atomic_path(path) as temporary:
        roiwrite(temporary, rois, mode="w")


def _roi(polygons: Sequence[Polygon]) -> ImagejRoi:
    rings = [ring for polygon in polygons for ring in polygon.rings]
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    box = {"left": left, "top": top, "right": right, "bottom": bottom}
    if len(rings) == 1:
        relative = (corners - (left, top)).astype(np.int32)
        return ImagejRoi(roitype=ROI_TYPE.TRACED, n_coordinates=len(corners), integer_coordinates=relative, **box)
    path = np.concatenate([_path(ring) for ring in rings])
    return ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path), multi_coordinates=path, **box)


def _path(ring: np.ndarray) -> np.ndarray:
    """A ring as ImageJ keeps it in a composite ROI: move to (0), lines to (1), close (4); float32."""
    segments = np.ones((len(ring), 3), dtype=np.float32)
    segments[0, 0] = 0
    segments[:, 1:] = ring
    return np.append(segments, np.float32(4))
