"""Write measurements as CSV, for spreadsheets and statistics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.export.formats import FORMATS
from cellseg_d2.io.csv import write_csv_table

if TYPE_CHECKING:
    from cellseg_d2.inference.segmentation import Segmentation


@FORMATS.register("csv", suffix="_cells.csv", summary="measurements, one row a cell")
def write_table(path: str | Path, segmentation: Segmentation) -> None:
    """Write :meth:`Segmentation.measure` with the names of its columns as the first line.

    Args:
        path: path of the CSV, UTF-8, separated by commas, with decimal points; names as
            :func:`cellseg_d2.io.csv.spreadsheet_text`.
        segmentation: the cells; without any, only the first line is written.
    """
    write_csv_table(path, segmentation.measure())
