"""Grids of tiles: every pixel is seen, and belongs to one tile."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg_d2.errors import CellSegError
from cellseg_d2.tiling.grid import LEAST_TILE, check_windows, tile_grid


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120), st.data())
def test_the_grid_covers_every_pixel(height, width, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    if max(height, width) > 8 * (tile - overlap):
        return  # thousands of tiles show nothing new
    tiles = tile_grid(height, width, tile, overlap)
    seen, owned = np.zeros((height, width), int), np.zeros((height, width), int)
    for window in tiles:
        x0, y0, x1, y1 = window.box
        assert (y1 - y0, x1 - x0) == (min(tile, height), min(tile, width))
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        seen[y0:y1, x0:x1] += 1
        a, b, c, d = window.core
        assert x0 <= a < c <= x1
        assert y0 <= b < d <= y1
        centers_x, centers_y = np.arange(width) + 0.25, np.arange(height) + 0.25
        owned += ((centers_y >= b) & (centers_y < d))[:, None] & ((centers_x >= a) & (centers_x < c))
    assert seen.min() >= 1
    assert (owned == 1).all()
    for before, after in pairwise(tiles):
        if before.top == after.top:
            assert before.left + before.width - after.left >= overlap


def test_the_grid_has_no_more_tiles_than_needed():
    assert len(tile_grid(1024, 1024, 1024, 128)) == 1
    assert len(tile_grid(1025, 1024, 1024, 128)) == 2
    assert len(tile_grid(1920, 1920, 1024, 128)) == 4
    assert len(tile_grid(10_000, 10_000, 1024, 128)) == 12**2
    for bad in [(0, 0), (10, 10), (10, -1)]:
        with pytest.raises(CellSegError, match="overlap"):
            tile_grid(50, 50, *bad)


def test_windows_in_which_no_cell_would_be_seen_are_refused():
    check_windows(None)
    check_windows(LEAST_TILE, 0)
    for tile in (LEAST_TILE - 1, 1, 0, -5):
        with pytest.raises(CellSegError, match=f"windows of {tile} pixels .* a side of 64 or more"):
            check_windows(tile)
    with pytest.raises(CellSegError, match="overlap by -1"):
        check_windows(None, -1)
