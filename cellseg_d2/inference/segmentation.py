"""A segmented image as users get it: cells as arrays, tables, pictures and files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cellseg_d2.datasets.coco_json import EncodedCell, EncodedImage
from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference.measure import measure_cells
from cellseg_d2.masks.crop import MaskCrop, crop_to_coco
from cellseg_d2.masks.overlaps import label_dtype, label_image
from cellseg_d2.masks.polygons import Polygon, outline
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.visualization.overlays import check_inside, draw_outlines, text_strip, type_color
from cellseg_d2.visualization.style import DEFAULT, Style, draw_scale_bar

# Notebooks keep their pictures in the file, so these are no wider, in pixels.
_NOTEBOOK_WIDTH = 1600
# Up to this side a picture is twice as large as the image, so that the inside of small cells is seen.
_LARGEST_DOUBLED = 2048


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """The cells of one image, best score first, and what can be made of them.

    Cell ``i`` of the lists and arrays is ``label`` ``i + 1`` in tables, label images and files.

    Attributes:
        cells: disjoint masks with scores and classes.
        class_names: one for each class.
        image: the grey image ``(H, W)``, for pictures and for measuring grey values; may be missing.
        pixel_size: for measurements in micrometres and for programs that show them; may be unknown.
        name: of the image, usually its file's name without the suffix; files are called by it.
        detections: what the cells were made of, before any threshold; only where they were to be kept.
        file_name: of the image, with its suffix, for formats that name it; None where it is from no file.
        frame: number of the plane in a stack, from 0, for tables; None where the image is no stack.
        style: how pictures of it are drawn, also those that are saved.

    Raises:
        CellSegError: the parts do not belong together, or a cell has no pixels.

    Example:
        >>> dots = [MaskCrop(0, 0, np.ones((2, 2), bool)), MaskCrop(3, 1, np.ones((1, 4), bool))]
        >>> cells = Cells(5, 6, dots, np.array([0.9, 0.8], np.float32), np.array([0, 1]))
        >>> segmentation = Segmentation(cells, ["round", "long"], name="a")
        >>> segmentation
        Segmentation(a: 6 × 5 pixels, 2 cells: 1 round, 1 long)
        >>> segmentation.labels[3].tolist()
        [0, 2, 2, 2, 2, 0]
        >>> segmentation.save("out", ["labels", "csv"])  # doctest: +SKIP
        [PosixPath('out/a_labels.tif'), PosixPath('out/a_cells.csv')]
    """

    cells: Cells
    class_names: Sequence[str]
    image: np.ndarray | None = None
    pixel_size: PixelSize | None = None
    name: str = "image"
    detections: Detections | None = None
    file_name: str | None = None
    frame: int | None = None
    style: Style = DEFAULT

    def __post_init__(self) -> None:
        check_inside(self.crops, self.height, self.width)
        if not len(self.crops) == len(self.scores) == len(self.classes):
            raise CellSegError(f"{len(self.crops)} masks, {len(self.scores)} scores, {len(self.classes)} classes")
        if not all(crop.mask.any() for crop in self.crops):
            raise CellSegError("a cell has no pixels; remove it first")
        if len(self) and not 0 <= self.classes.min() <= self.classes.max() < len(self.class_names):
            raise CellSegError(
                f"classes from {self.classes.min()} to {self.classes.max()} do not fit {len(self.class_names)} names"
            )
        if self.style.scale_bar and self.pixel_size is None:
            raise CellSegError(
                f"the size of the pixels of {self.name} is in no metadata, and a scale bar needs it: give --pixel-size"
            )
        if self.image is not None and self.image.shape != (self.height, self.width):
            raise CellSegError(
                f"the image has the shape {self.image.shape}, but the cells are of {self.height} × {self.width} pixels "
                "(height × width)"
            )

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        return f"Segmentation({self.name}: {self.width} × {self.height} pixels, {self._total}{kinds and ': '}{kinds})"

    @property
    def _total(self) -> str:
        return "1 cell" if len(self) == 1 else f"{len(self)} cells"

    @property
    def height(self) -> int:
        """Of the image, in pixels."""
        return self.cells.height

    @property
    def width(self) -> int:
        """Of the image, in pixels."""
        return self.cells.width

    @property
    def crops(self) -> Sequence[MaskCrop]:
        """``N`` masks, each with its place in the image; they share no pixel."""
        return self.cells.crops

    @property
    def scores(self) -> np.ndarray:
        """How sure the network is of each cell, float32 ``(N,)`` in 0…1, descending."""
        return self.cells.scores

    @property
    def classes(self) -> np.ndarray:
        """Index of each cell's class, int64 ``(N,)``."""
        return self.cells.classes

    @property
    def cell_types(self) -> list[str]:
        """The name of each cell's class, ``N`` of them."""
        return [self.class_names[index] for index in self.classes.tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells by class name, 0 included."""
        counts = np.bincount(self.classes, minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes ``(x0, y0, x1, y1)`` in pixels, the end exclusive, int64 ``(N, 4)``."""
        return np.array([crop.tight().box for crop in self.crops], dtype=np.int64).reshape(-1, 4)

    @cached_property
    def labels(self) -> np.ndarray:
        """Label image ``(H, W)``: 0 is background, ``i + 1`` cell ``i``; uint16 where that fits, else uint32."""
        return label_image(self.crops, self.height, self.width).astype(label_dtype(len(self)))

    @property
    def masks(self) -> np.ndarray:
        """All masks at full size, bool ``(N, H, W)``; made anew each time.

        They take N × H × W bytes: 800 cells of 520 × 704 pixels 293 MB. ``labels`` and ``crops`` hold the same in less
        than one.
        """
        masks = np.zeros((len(self), self.height, self.width), dtype=bool)
        for mask, crop in zip(masks, self.crops, strict=True):
            mask[crop.slices] = crop.mask
        return masks

    @cached_property
    def outlines(self) -> list[list[Polygon]]:
        """The polygons of each cell, along the edges of its pixels: see :mod:`cellseg_d2.masks.polygons`."""
        return [outline(crop) for crop in self.crops]

    def measure(self) -> pd.DataFrame:
        """Place, size, shape and grey values, one row a cell; of a stack with its ``frame`` first.

        See :func:`cellseg_d2.inference.measure.measure_cells`.
        """
        return self._measured.copy()

    @cached_property
    def _measured(self) -> pd.DataFrame:
        scores = self.scores.astype(np.float64).round(6)
        table = measure_cells(self.crops, self.image, self.pixel_size, classes=self.cell_types, scores=scores)
        if self.frame is not None:
            table.insert(0, "frame", self.frame)
        return table

    @property
    def colors(self) -> np.ndarray:
        """The colour of each cell in pictures, uint8 ``(N, 3)``."""
        return self.style.colors(self.crops, self.cell_types, self.class_names)

    def picture(self, **drawing: Any) -> np.ndarray:
        """The image with its cells outlined as :attr:`style` says, by default under a strip with name and numbers.

        Args:
            **drawing: passed on to :func:`cellseg_d2.visualization.overlays.draw_outlines`, such as ``thickness``,
                ``fill``, ``labels`` or ``upscale``, by default 2, of large images 1.

        Returns:
            ``(strip + H * upscale, W * upscale, 3)`` uint8 RGB. Where the image is missing, the ground is plain grey.
        """
        drawing.setdefault("upscale", 2 if max(self.height, self.width) <= _LARGEST_DOUBLED else 1)
        return self._draw(1, drawing)

    def _repr_png_(self) -> bytes:
        """What notebooks show: the picture, at most 1,600 pixels wide."""
        step = -(-self.width // _NOTEBOOK_WIDTH)
        picture = self._draw(step, {"upscale": min(2, max(1, _NOTEBOOK_WIDTH // self.width))})
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "png")
        return buffer.getvalue()

    def _draw(self, step: int, drawing: dict) -> np.ndarray:
        """The picture of every ``step``-th row and column."""
        image = np.broadcast_to(np.uint8(0), (self.height, self.width)) if self.image is None else self.image
        drawing.setdefault("labels", self.style.labels(len(self)))
        crops = [_every(step, crop) for crop in self.crops]
        drawn = draw_outlines(image[::step, ::step], crops, self.colors, **drawing)
        if self.style.scale_bar and self.pixel_size is not None:
            drawn = draw_scale_bar(drawn, self.pixel_size.x_um * self.width / drawn.shape[1])
        if not self.style.header:
            return drawn
        # One colour stands for a class only where all of its cells have it.
        colors = {name: None if self.style.by_cell else type_color(name, self.class_names) for name in self.class_names}
        counts = [(_shown(f"{name} {count}"), colors[name]) for name, count in self.counts.items() if count]
        strip = text_strip(drawn.shape[1], _shown(self.name), [(self._total, None), *counts])
        return np.concatenate([strip, drawn])

    def encoded(self) -> EncodedImage:
        """The cells as COCO JSON has them: category ids count the class names from 1 on, the image's id is 1."""
        file_name = self.file_name or f"{self.name}.png"
        entry = {"id": 1, "file_name": file_name, "height": self.height, "width": self.width, "source_id": self.name}
        cells = []
        for crop, (x0, y0, x1, y1), index, score in zip(
            self.crops, self.boxes.tolist(), self.classes.tolist(), self.scores.tolist(), strict=True
        ):
            counts = crop_to_coco(crop, self.height, self.width)["counts"]
            cells.append(EncodedCell(index + 1, counts, (x0, y0, x1 - x0, y1 - y0), crop.area, round(score, 6)))
        return EncodedImage(entry, cells)

    def save(self, folder: str | Path, formats: Iterable[str]) -> list[Path]:
        """Write the segmentation to files ``<name><suffix>``, each whole or not at all.

        Args:
            folder: is made where needed; files of the same names are replaced.
            formats: names out of :data:`cellseg_d2.export.formats.FORMATS`, such as ``"labels"`` or ``"rois"``.

        Returns:
            The files, in the order of ``formats``.

        Raises:
            CellSegError: a format is not known; nothing is written then. Or it needs ``detections``, which are missing.
        """
        from cellseg_d2.export.formats import choose_formats

        paths = []
        for chosen in choose_formats(formats).values():
            paths.append(chosen.path(folder, self.name))
            chosen.write(paths[-1], self)
        return paths


def _shown(text: str) -> str:
    """Text of one line, without what no font has."""
    return "".join(char if char.isprintable() else "_" for char in text)


def _every(step: int, crop: MaskCrop) -> MaskCrop:
    """A crop in the image of every ``step``-th row and column; small ones may come out empty."""
    down, right = -crop.top % step, -crop.left % step
    return MaskCrop((crop.top + down) // step, (crop.left + right) // step, crop.mask[down::step, right::step])
