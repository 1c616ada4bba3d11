"""Labels layers as files for ImageJ and QuPath."""

from __future__ import annotations

import numpy as np

from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import FORMATS
from cellseg_d2.inference.annotated import segmentation_of
from cellseg_d2.masks.overlaps import crops_from_labels


def write_rois(path: str, data: np.ndarray, attributes: dict) -> list[str]:
    """A labels layer as a set of ROIs for ImageJ."""
    return _write("rois", path, data, attributes)


def write_geojson(path: str, data: np.ndarray, attributes: dict) -> list[str]:
    """A labels layer as GeoJSON for QuPath."""
    return _write("geojson", path, data, attributes)


def _write(kind: str, path: str, data: np.ndarray, attributes: dict) -> list[str]:
    """Write the cells of a label image ``(H, W)``, as one class."""
    labels, name = np.asarray(data), attributes.get("name", "image")
    if labels.ndim != 2:
        raise CellSegError(f"{name} has {labels.ndim} dimensions: show one plane of it, cells are of height and width")
    cells = [CellAnnotation(crop, "cell") for crop in crops_from_labels(labels)]
    record = ImageRecord(name, f"{name}.tif", *labels.shape, "cell", None, cells)
    FORMATS[kind].write(path, segmentation_of(record, ["cell"]))
    return [path]
