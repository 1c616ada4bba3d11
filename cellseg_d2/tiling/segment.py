"""Segmenting images of any size, tile by tile.

A network sees one tile at a time; tiles overlap, so that a cell which one tile cuts is whole in its neighbour. What is
kept in memory is one tile and the cells found so far, nothing of the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.intensity import to_uint8
from cellseg_d2.images.lazy import ImageSource, open_source, sample_percentiles
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.tiling.overlaps import postprocess_large
from cellseg_d2.tiling.seams import TiledDetections, merge_tiles


@dataclass(frozen=True)
class Tile:
    """One window of an image, and the part of it that is its own.

    Attributes:
        top, left, height, width: of the window, in pixels.
        core: ``(x0, y0, x1, y1)`` in pixels of the image, the end exclusive. The cores of a grid share nothing and
            cover the image.
    """

    top: int
    left: int
    height: int
    width: int
    core: tuple[float, float, float, float]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The window ``(x0, y0, x1, y1)`` in pixels, the end exclusive."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def tile_grid(height: int, width: int, tile: int = 1024, overlap: int = 128) -> list[Tile]:
    """Cover an image with windows of one size that overlap.

    As few windows as the overlap allows are spread evenly, so that neighbours share at least ``overlap`` pixels. The
    cores meet in the middle of what neighbours share; at the border of the image they reach up to it.

    Args:
        height, width: of the image in pixels.
        tile: side of a window in pixels; an image that is smaller makes its windows smaller.
        overlap: pixels, less than ``tile``.

    Returns:
        Row by row, from the upper left to the lower right.

    Raises:
        CellSegError: no such grid exists.

    Example:
        >>> [tile.box for tile in tile_grid(100, 180, tile=100, overlap=20)]
        [(0, 0, 100, 100), (80, 0, 180, 100)]
    """
    if tile < 1 or not 0 <= overlap < tile:
        raise CellSegError(
            f"tiles of {tile} pixels cannot overlap by {overlap}: the overlap must be at least 0 and less than the tile"
        )
    if height < 1 or width < 1:
        raise CellSegError(f"an image of {height} × {width} pixels cannot be cut into tiles")
    rows, columns = _intervals(height, tile, overlap), _intervals(width, tile, overlap)
    h, w = min(tile, height), min(tile, width)
    return [Tile(top, left, h, w, (x0, y0, x1, y1)) for top, y0, y1 in rows for left, x0, x1 in columns]


def _intervals(length: int, tile: int, overlap: int) -> list[tuple[int, float, float]]:
    """Start of each window along one side, and start and end of its core."""
    if length <= tile:
        return [(0, 0.0, float(length))]
    count = -(-(length - overlap) // (tile - overlap))
    starts = np.linspace(0, length - tile, count).round().astype(int)
    borders = [0.0, *((starts[1:] + starts[:-1] + tile) / 2).tolist(), float(length)]
    return list(zip(starts.tolist(), borders[:-1], borders[1:], strict=True))


def segment_tiled(
    detect: Callable[[np.ndarray], Detections],
    image: ImageSource | ArrayLike | str | Path,
    params: PostprocessParams,
    *,
    tile: int = 1024,
    overlap: int = 128,
    intensity: str = "auto",
    intensity_percentiles: tuple[float, float] = (0.1, 99.9),
    progress: bool = True,
) -> Cells:
    """The cells of an image of any size.

    An image that fits into one tile gives what :func:`cellseg_d2.postprocess.steps.postprocess` gives for it. In
    larger ones the tiles' detections are merged first (:func:`cellseg_d2.tiling.seams.merge_tiles`), then all
    steps of post-processing run once for the whole image: one vote on its type, one ranking, one removal of duplicates
    and overlaps, also across seams. Cells up to ``overlap`` pixels wide and high are seen whole by a tile; larger ones
    may be put together from what several tiles see of them, and where these do not agree, stay in parts.

    Args:
        detect: finds cells in a grey uint8 tile ``(h, w)``, in its coordinates. All tiles of an image have one size.
        image: see :func:`cellseg_d2.images.lazy.open_source`.
        params: how detections become cells.
        tile, overlap: in pixels, see :func:`tile_grid`. The overlap should exceed the size of most cells.
        intensity, intensity_percentiles: see :func:`cellseg_d2.images.intensity.to_uint8`; the percentiles are those of
            the whole image, from a sample if it is large, so that all tiles are stretched alike.
        progress: whether a bar with the time left is shown.

    Raises:
        CellSegError: the image cannot be read, or there is no such grid of tiles.
    """
    source = open_source(image)
    try:
        tiles = tile_grid(source.height, source.width, tile, overlap)
        as_it_is = intensity == "auto" and source.dtype == np.uint8
        limits = None if as_it_is else sample_percentiles(source, intensity_percentiles)
        found = TiledDetections(source.height, source.width, tiles, min_score=min(params.score_thresholds))
        for window in tqdm(tiles, desc="segmenting", unit="tile", disable=not progress):
            grey = source.read(window.top, window.left, window.height, window.width)
            found.add(window, detect(to_uint8(grey, intensity, intensity_percentiles, limits)))
    finally:
        if source is not image:
            source.close()
    merged = merge_tiles(found)
    detections = merged.detections
    if params.vote and (winner := found.vote_class()) is not None:
        detections = replace(detections, classes=np.full(len(detections), winner))
        params = replace(params, vote=False)
    return postprocess_large(detections, params, merged.pasted())
