"""Cut large images into tiles, so that a data set of one or a few images can be split into training and validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.names import key_of
from cellseg_d2.datasets.readers import Source
from cellseg_d2.datasets.records import ImageRecord, main_type
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.io.atomic import atomic_path
from cellseg_d2.masks.crop import united
from cellseg_d2.masks.overlaps import window_crop

# A cell cut by a tile's border is kept if at least this share of it is left.
_LEAST_SHARE = 0.1


class TiledSource:
    """A source whose images are cut into tiles, which are written as its records are read.

    Attributes:
        path, categories, ids, has_groups, drop: those of the source.
        images: the folder of the tiles.

    Args:
        source: with images.
        tiles: number of tiles along each side of an image.
        folder: folder for the tiles, created if needed.

    Raises:
        CellSegError: the source has no images.
    """

    def __init__(self, source: Source, tiles: int, folder: str | Path):
        if source.images is None:
            raise CellSegError(f"{source.path} is read without its images, so they cannot be cut into tiles")
        self._source, self._root = source, source.images.root
        self._tiles = tiles
        self._folder = Path(folder)
        self.path: Path = source.path
        self.categories: Sequence[str] = source.categories
        self.ids = source.ids
        self.has_groups = source.has_groups
        self.drop = source.drop

    @property
    def images(self) -> ImageFolder:
        """The folder of the tiles."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return ImageFolder.of_names(self._folder, {})

    def __len__(self) -> int:
        return len(self._source) * self._tiles**2

    def records(self, log: FindingLog) -> Iterator[ImageRecord]:
        """Read image by image and tile by tile, in reading order; a tile is called ``NAME_r1c2`` by row and column.

        The tiles of one image have a group in common, unless there is only this image.
        """
        single = len(self._source) == 1
        self._folder.mkdir(parents=True, exist_ok=True)
        for record in self._source.records(log):
            if min(record.height, record.width) < self._tiles:
                raise CellSegError(
                    f"{record.file_name} is too small to be cut into {self._tiles} × {self._tiles} tiles"
                )
            path = self._root / record.file_name
            if not path.is_file():
                raise CellSegError(f"{record.file_name} has no file, so it cannot be cut into tiles")
            yield from self._tiles_of(record, read_image(path), None if single else record.group or record.id, log)

    def _tiles_of(
        self, record: ImageRecord, image: np.ndarray, group: str | None, log: FindingLog
    ) -> Iterator[ImageRecord]:
        rows = np.linspace(0, record.height, self._tiles + 1).astype(int).tolist()
        columns = np.linspace(0, record.width, self._tiles + 1).astype(int).tolist()
        for r, (top, bottom) in enumerate(pairwise(rows)):
            for c, (left, right) in enumerate(pairwise(columns)):
                name = f"{record.id}_r{r}c{c}"
                file_name = f"{key_of(f'{record.id}.tif')}_r{r}c{c}.tif"  # of images in several folders, in such ones
                (self._folder / file_name).parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(self._folder / file_name) as temporary:
                    tifffile.imwrite(temporary, image[top:bottom, left:right], compression="zlib")
                cells = []
                for cell in record.cells:
                    part = window_crop(cell.crop, (left, top, right, bottom)).tight()
                    if part.area >= _LEAST_SHARE * cell.crop.area:
                        cells.append(replace(cell, crop=part))
                    elif part.area:
                        share = f"{part.area} of {cell.crop.area} px are in the tile"
                        log.note("cut cell", name, cell.row, share, action="left out of this tile")
                kind = main_type(cell.cell_type for cell in cells)
                region = record.ignore and window_crop(record.ignore, (left, top, right, bottom))
                size = bottom - top, right - left
                regions = united([region])
                yield ImageRecord(name, file_name, *size, kind, group, cells, ignore=regions, cut_from=record.id)
