"""Segment images of any size, tile by tile.

A network sees one tile at a time; tiles overlap, so that a cell which one tile cuts is whole in its neighbour. What is
kept in memory is one tile and the cells found so far, nothing of the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cellseg_d2.detections.detections import Detections
from cellseg_d2.images.intensity import to_uint8
from cellseg_d2.images.lazy import ImageSource, open_source, sample_percentiles
from cellseg_d2.io.progress import track
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import Cells, postprocess
from cellseg_d2.tiling.grid import tile_grid
from cellseg_d2.tiling.seams import TiledDetections, merge_tiles


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
    keep: Callable[[Detections], object] | None = None,
) -> Cells:
    """Find the cells of an image of any size.

    An image that fits into one tile gives what :func:`cellseg_d2.postprocess.steps.postprocess` gives for it. In
    larger ones the tiles' detections are merged first (:func:`cellseg_d2.tiling.seams.merge_tiles`), then all
    steps of post-processing run once for the whole image: one vote on its type, one ranking, one removal of duplicates
    and overlaps, also across seams. Cells up to ``overlap`` pixels wide and high are seen whole by a tile; larger ones
    may be put together from what several tiles see of them, and where these do not agree, stay in parts.

    Args:
        detect: finds cells in a grey uint8 tile ``(h, w)``, in its coordinates. All tiles of an image have one size.
        image: see :func:`cellseg_d2.images.lazy.open_source`.
        params: how detections become cells.
        tile, overlap: in pixels, see :func:`cellseg_d2.tiling.grid.tile_grid`. The overlap should exceed the size of
            most cells.
        intensity, intensity_percentiles: see :func:`cellseg_d2.images.intensity.to_uint8`; the percentiles are those of
            the whole image, from a sample if it is large, so that all tiles are stretched alike.
        progress: whether a bar with the time left is shown.
        keep: called with all detections of the image before any threshold, those of several tiles merged.

    Raises:
        CellSegError: the image cannot be read, or there is no such grid of tiles.
    """
    source = open_source(image)
    try:
        tiles = tile_grid(source.height, source.width, tile, overlap)
        as_it_is = intensity == "auto" and source.dtype == np.uint8
        limits = None if as_it_is else sample_percentiles(source, intensity_percentiles)
        found = TiledDetections(source.height, source.width, tiles, min_score=min(params.score_thresholds))
        everything = TiledDetections(source.height, source.width, tiles) if keep is not None else None
        for window in track(tiles, "segmenting", "tile", shown=progress):
            grey = source.read(window.top, window.left, window.height, window.width)
            detections = detect(to_uint8(grey, intensity, intensity_percentiles, limits))
            found.add(window, detections.moved(*params.mask_offset))
            if everything is not None:
                everything.add(window, detections)
    finally:
        if source is not image:
            source.close()
    if keep is not None and everything is not None:
        keep(merge_tiles(everything).on_grids())
    merged = merge_tiles(found)
    detections = merged.detections
    params = replace(params, mask_offset=(0.0, 0.0))
    if params.vote and (winner := found.vote_class()) is not None:
        detections = replace(detections, classes=np.full(len(detections), winner))
        params = replace(params, vote=False)
    return postprocess(detections, params, merged.pasted())
