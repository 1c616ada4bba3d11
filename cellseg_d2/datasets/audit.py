"""Check annotated images and, with ``--clean``, repair them; every finding and every repair is logged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord, main_type
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import intersections
from cellseg_d2.masks.repair import measure_shape, repair_shape

NEAR_DUPLICATE_IOU = 0.5
IMPLAUSIBLE = 0.001
_SHAPE_REASONS = {
    "holes": "pieces of background enclosed: {shape.holes}",
    "line artefact": "a straight edge of {shape.straight_edge} px",
    "several components": "it is in {shape.components} pieces",
}
_SHAPE_REPAIRS = {
    "holes": "{pixels} px filled",
    "line artefact": "{pixels} px of thin lines erased",
    "several components": "largest piece kept, {pixels} px dropped",
}


@dataclass
class TypeTotals:
    """Sums over the cells of one type, as they were read.

    Attributes:
        images: number of images that are mostly of this type.
        cells: annotations.
        area, smallest_area, most_cells: pixels of all cells, of the smallest one; cells of the fullest image.
        holes, line_artefacts, several_components: cells with such a flaw.
        duplicates, near_duplicates: cells that equal, or have IoU > 0.5 with, an earlier cell.
        overlapping: cells that share a pixel with another one.
        foreground_px, overlap_px: pixels of images of this type that are in at least one, at least two cells.
    """

    images: int = 0
    cells: int = 0
    area: int = 0
    smallest_area: int = 0
    most_cells: int = 0
    holes: int = 0
    line_artefacts: int = 0
    several_components: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    overlapping: int = 0
    foreground_px: int = 0
    overlap_px: int = 0


@dataclass(frozen=True)
class ImageOverlap:
    """How much the cells of one image overlap, as they were read; the fields are those of :class:`TypeTotals`."""

    id: str
    cells: int
    overlapping: int
    overlap_px: int
    foreground_px: int


@dataclass(eq=False)
class Audit:
    """Collects what is found in a data set, image by image.

    Attributes:
        log: the findings; if ``log.clean`` is set, :meth:`check` repairs.
        totals: by cell type, as the annotations were read.
        overlaps: overlaps of the images in which cells overlap.
        images, cells: how many :meth:`check` has returned.
        plausibilities: gives the plausibility of masks' shapes, 0…1; None skips this check. It is only reported, since
            rare shapes need not be wrong.
        implausible: shapes below this are reported.
    """

    log: FindingLog
    totals: dict[str, TypeTotals] = field(default_factory=dict)
    overlaps: list[ImageOverlap] = field(default_factory=list)
    images: int = 0
    cells: int = 0
    plausibilities: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None
    implausible: float = IMPLAUSIBLE

    def check(self, record: ImageRecord) -> ImageRecord:
        """Check one image.

        Returns:
            The same record, or, if cleaning, one without duplicates and with repaired masks.
        """
        types = Counter(cell.cell_type for cell in record.cells)
        # Where all cells are of one category, such as "cell", the image knows the type better.
        by_cell = [
            self._totals(cell.cell_type if record.cell_type in types else record.cell_type or cell.cell_type)
            for cell in record.cells
        ]
        doubles = self._compare(record, by_cell)
        cells = [
            self._check_shape(record, cell, totals, is_double=i in doubles)
            for i, (cell, totals) in enumerate(zip(record.cells, by_cell, strict=True))
        ]
        if self.plausibilities is not None:
            self._note_implausible(record, self.plausibilities)
        if len(types) > 1:
            counts = ", ".join(f"{count} {name}" for name, count in types.most_common())
            self.log.note("several cell types", record.id, None, counts)
        if self.log.clean:
            cells = [cell for i, cell in enumerate(cells) if i not in doubles]
            own_type = main_type(cell.cell_type for cell in cells) if record.cell_type in types else record.cell_type
            record = replace(record, cells=cells, cell_type=own_type)
        if not record.cells:
            self.log.note("image without cells", record.id, None, "no cell is annotated in it")
        self.images += 1
        self.cells += len(record.cells)
        return record

    def _totals(self, cell_type: str) -> TypeTotals:
        return self.totals.setdefault(cell_type, TypeTotals())

    def _compare(self, record: ImageRecord, by_cell: list[TypeTotals]) -> dict[int, tuple[int, float]]:
        """Add up areas and overlaps and log doubles.

        Args:
            record: the image.
            by_cell: the sums to which each cell counts.

        Returns:
            The doubles, see :func:`find_doubles`.
        """
        if not record.cells:
            return {}
        crops = [cell.crop for cell in record.cells]
        areas = [crop.area for crop in crops]
        for totals, area in zip(by_cell, areas, strict=True):
            totals.smallest_area = min(totals.smallest_area, area) if totals.cells else area
            totals.cells += 1
            totals.area += area
        own = self._totals(record.cell_type or record.cells[0].cell_type)
        own.images += 1
        own.most_cells = max(own.most_cells, len(crops))

        first, second, shared = intersections(crops)
        doubles = find_doubles(first, second, shared, np.array(areas))
        for i, (j, iou) in sorted(doubles.items()):
            cell, other = record.cells[i], record.cells[j]
            if iou == 1:
                by_cell[i].duplicates += 1
                self.log.note("duplicate", record.id, cell.row, f"equals row {other.row}", repair="row dropped")
            else:
                by_cell[i].near_duplicates += 1
                reason = f"IoU {iou:.3f} with row {other.row}, which has {areas[j]} px against {areas[i]} px"
                self.log.note("near-duplicate", record.id, cell.row, reason, repair="row dropped")

        overlapping = np.unique(np.concatenate([first, second])).tolist()
        for i in overlapping:
            by_cell[i].overlapping += 1
        covered, twice = coverage(crops, record.height, record.width) if overlapping else (sum(areas), 0)
        own.foreground_px += covered
        own.overlap_px += twice
        if overlapping:
            self.overlaps.append(ImageOverlap(record.id, len(crops), len(overlapping), twice, covered))
        return doubles

    def _check_shape(
        self, record: ImageRecord, cell: CellAnnotation, totals: TypeTotals, is_double: bool
    ) -> CellAnnotation:
        shape = measure_shape(cell.crop, record.height)
        flaws = {
            "holes": shape.holes > 0,
            "line artefact": shape.is_broken,
            "several components": shape.components > 1,
        }
        if not any(flaws.values()):
            return cell
        totals.holes += flaws["holes"]
        totals.line_artefacts += flaws["line artefact"]
        totals.several_components += flaws["several components"]
        crop, changed = repair_shape(cell.crop, shape) if self.log.clean and not is_double else (cell.crop, {})
        for name, flawed in flaws.items():
            if flawed or name in changed:
                reason = _SHAPE_REASONS[name].format(shape=shape) if flawed else "left by the repair of other flaws"
                done = _SHAPE_REPAIRS[name].format(pixels=changed[name]) if name in changed else None
                self.log.note(name, record.id, cell.row, reason, repair="row dropped" if is_double else done)
        return replace(cell, crop=crop) if changed else cell

    def _note_implausible(
        self, record: ImageRecord, plausibilities: Callable[[Sequence[np.ndarray]], np.ndarray]
    ) -> None:
        """Log the cells, as they were read, whose shapes are rare; cells cut by the image's border are not judged."""
        whole = [cell for cell in record.cells if not cell.crop.is_cut(record.height, record.width)]
        values = plausibilities([cell.crop.mask for cell in whole]).tolist()
        for cell, value in zip(whole, values, strict=True):
            if value < self.implausible:
                reason = f"its plausibility is {value:.2g}, among cells of its size"
                self.log.note("implausible shape", record.id, cell.row, reason)

    def to_dict(self) -> dict:
        """All results, ready for JSON."""
        kinds: dict[str, dict] = {}
        for finding in self.log:
            kind = kinds.setdefault(finding.kind, {"severity": finding.severity, "count": 0, "acted_on": 0})
            kind["count"] += 1
            kind["acted_on"] += finding.action is not None
        return {
            "clean": self.log.clean,
            "open_errors": len(self.log.open_errors),
            "images": self.images,
            "cells": self.cells,
            "types": {name: asdict(totals) for name, totals in self.totals.items()},
            "kinds": kinds,
            "findings": [finding.to_dict() for finding in self.log],
            "overlaps": [asdict(overlap) for overlap in self.overlaps],
        }


def coverage(crops: Sequence[MaskCrop], height: int, width: int) -> tuple[int, int]:
    """Number of pixels in at least one, and in at least two of the masks."""
    count = np.zeros((height, width), dtype=np.uint8)
    for crop in crops:
        part = count[crop.slices]
        part += crop.mask & (part < 2)
    return int(np.count_nonzero(count)), int(np.count_nonzero(count == 2))


def find_doubles(
    first: np.ndarray, second: np.ndarray, shared: np.ndarray, areas: np.ndarray
) -> dict[int, tuple[int, float]]:
    """Find cells that are annotated twice: equal masks, or IoU above :data:`NEAR_DUPLICATE_IOU`.

    The smaller cell of a pair is the double, the later one of two equally large cells. Cells are examined from the
    largest down, and a double does not make others doubles: in a chain a, b, c where a and c are far apart, only b is a
    double.

    Args:
        first, second, shared: the pairs, see :func:`cellseg_d2.masks.overlaps.intersections`.
        areas: int64 ``(N,)``, areas of all cells in pixels.

    Returns:
        For each double the cell that it doubles and their IoU.
    """
    iou = shared / (areas[first] + areas[second] - shared)
    partners: dict[int, list[tuple[float, int]]] = {}
    for i, j, value in zip(first.tolist(), second.tolist(), iou.tolist(), strict=True):
        if value > NEAR_DUPLICATE_IOU:
            partners.setdefault(i, []).append((value, j))
            partners.setdefault(j, []).append((value, i))
    doubles: dict[int, tuple[int, float]] = {}
    for i in sorted(partners, key=lambda i: (-areas[i], i)):
        asked = [(value, -j) for value, j in partners[i] if (areas[j], -j) > (areas[i], -i)]
        # An equal cell makes a double of this one even where it is a double itself.
        rivals = [(value, j) for value, j in asked if value == 1 or -j not in doubles]
        if rivals:
            value, j = max(rivals)
            doubles[i] = (-j, value)
    return doubles
