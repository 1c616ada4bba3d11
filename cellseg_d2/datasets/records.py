"""Records of annotated images, which every reader returns and every writer, check and evaluation takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from cellseg_d2.masks.crop import MaskCrop


@dataclass(frozen=True, eq=False)
class CellAnnotation:
    """One annotated cell.

    Attributes:
        crop: its mask, tight and inside the image.
        cell_type: name of its category.
        row: the number, or a text, by which the source names it: the line of the CSV (the header is line 1), the
            annotation's id in a COCO JSON, the label in a label image. None where it has none.
        score: how sure the network is of a predicted cell, 0…1; None where the source says nothing.
    """

    crop: MaskCrop
    cell_type: str
    row: int | str | None = None
    score: float | None = None


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its cells, which may overlap.

    Attributes:
        id: the image's name, unique in its dataset; in the competition's files the column ``id``.
        file_name: path relative to the folder of images.
        height, width: in pixels.
        cell_type: type of most of the cells; None without cells.
        group: what images that look alike have in common, such as plate and well; None when unknown.
        cells: in the source's order.
        number: the image's id in the COCO JSON it was read from; None for other sources.
        ignore: where nobody annotated, so that training learns nothing from it and scores do not count it: a mask,
            tight and inside the image; None where all counts. What is also in a cell is that cell's.
        cut_from: id of the image that this one is a tile of; None for a whole image.
    """

    id: str
    file_name: str
    height: int
    width: int
    cell_type: str | None = None
    group: str | None = None
    cells: list[CellAnnotation] = field(default_factory=list)
    number: int | None = None
    ignore: MaskCrop | None = None
    cut_from: str | None = None


def main_type(cell_types: Iterable[str]) -> str | None:
    """The commonest of ``cell_types``, the first of them on a tie; None without any."""
    counts = Counter(cell_types)
    return counts.most_common(1)[0][0] if counts else None
