"""Divide an image into overlapping windows of one size, each with a core that belongs to it alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellseg_d2.errors import CellSegError

# Side in pixels of the smallest windows that users can ask for.
LEAST_TILE = 64


@dataclass(frozen=True)
class Tile:
    """One window of an image, and the part of it that is its own.

    Attributes:
        top, left, height, width: place and size of the window, in pixels.
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


def check_windows(tile: int | None, overlap: int = 0) -> None:
    """Refuse windows that are too small to show a cell: an image would take hours and give nothing.

    Args:
        tile: side in pixels; None is the model's own.
        overlap: in pixels.

    Raises:
        CellSegError: names the least sensible value.
    """
    if tile is not None and tile < LEAST_TILE:
        raise CellSegError(f"windows of {tile} pixels show no whole cells; they need a side of {LEAST_TILE} or more")
    if overlap < 0:
        raise CellSegError(f"windows cannot overlap by {overlap} pixels; take 0 or more")


def tile_grid(height: int, width: int, tile: int = 1024, overlap: int = 128) -> list[Tile]:
    """Cover an image with windows of one size that overlap.

    As few windows as the overlap allows are spread evenly, so that neighbours share at least ``overlap`` pixels. The
    cores meet in the middle of what neighbours share; at the border of the image they reach up to it.

    Args:
        height, width: size of the image in pixels.
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
