"""Read the masks of converted data sets as normalised pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.progress import track
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.normalize import normalize_shape


@dataclass(frozen=True, eq=False)
class CellTable:
    """Cells of several images.

    Attributes:
        images: names, ``N``.
        rows: the annotation's number or name in its file, ``N``; None where it has none.
        types: names, ``N``.
        crops: their masks.
        heights: int64 ``(N,)``, heights of their images.
        cut: bool ``(N,)``, whether a cell touches its image's border, so that its shape is unknown.
    """

    images: list[str]
    rows: list[int | str | None]
    types: list[str]
    crops: list[MaskCrop]
    heights: np.ndarray
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.crops)

    def select(self, indices: np.ndarray) -> CellTable:
        """The cells with these indices, in that order."""

        def own(values: list) -> list:
            return [values[i] for i in indices]

        return CellTable(
            own(self.images),
            own(self.rows),
            own(self.types),
            own(self.crops),
            self.heights[indices],
            self.cut[indices],
        )

    def row_column(self) -> ExtensionArray:
        """The rows as a table's column: whole numbers, or texts where one is a text; either may be missing."""
        if any(isinstance(row, str) for row in self.rows):
            return pd.array([None if row is None else str(row) for row in self.rows], dtype="string")
        return pd.array(self.rows, dtype="Int64")

    def pictures(self, size: int, progress: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The normalised pictures, float32 ``(N, size, size)``, and their scales, float32 ``(N,)``."""
        grids = np.zeros((len(self), size, size), dtype=np.float32)
        scales = np.zeros(len(self), dtype=np.float32)
        for i, crop in enumerate(track(self.crops, "normalising", "cell", shown=progress)):
            grids[i], pose = normalize_shape(crop.mask, size)
            scales[i] = pose.scale
        return grids, scales


def table_of(records: Sequence[ImageRecord]) -> CellTable:
    """The cells of annotated images; a cell whose type is only "cell" gets its image's type, if that has one."""
    pairs = [(record, cell) for record in records for cell in record.cells]
    by_image = {record.id: {cell.cell_type for cell in record.cells} for record in records}
    return CellTable(
        images=[record.id for record, _ in pairs],
        rows=[cell.row for _, cell in pairs],
        types=[
            cell.cell_type if record.cell_type in by_image[record.id] else record.cell_type or cell.cell_type
            for record, cell in pairs
        ],
        crops=[cell.crop for _, cell in pairs],
        heights=np.array([record.height for record, _ in pairs], dtype=np.int64),
        cut=np.array([cell.crop.is_cut(record.height, record.width) for record, cell in pairs], dtype=bool),
    )


def read_cells(paths: Sequence[str | Path]) -> CellTable:
    """The cells of converted data sets (COCO JSON).

    Raises:
        CellSegError: a file cannot be read, or none contains a cell.
    """
    table = table_of([record for path in paths for record in load_coco(path)])
    if not len(table):
        raise CellSegError(f"no cell is annotated in {', '.join(map(str, paths))}")
    return table
