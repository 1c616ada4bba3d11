"""Rectangles of a TIFF page, of which only the tiles or strips that they touch are decoded.

tifffile's own ``aszarr`` needs Zarr, and unpacks a tile to whatever length it has: for a file of 1 MB whose only tile,
of 64 × 64 pixels, unpacks to 1 GB it took 2 GB of memory.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import tifffile

from cellseg_d2.images.errors import ImageError

# What tifffile unpacks by Python's zlib, which has no limit; other decoders are told how much they are to write.
_DEFLATE = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
# Decoded segments that are kept, since neighbouring rectangles share some: 256 MB. One that is larger is kept alone.
_KEPT_BYTES = 2**28
# Some programs pad what they pack.
_SLACK_BYTES = 2**16


class SegmentReader:
    """Reads rectangles of one page.

    An uncompressed page in one piece is mapped into memory instead.

    Args:
        page: two-dimensional, of a file that stays open; with colours in any arrangement.
        skipped: bytes between the page's pixels and those that are meant, which have no page of their own.
    """

    def __init__(self, page: tifffile.TiffPage, skipped: int = 0):
        self._page = page
        self._samples, _, self._height, self._width, self._contiguous = page.shaped
        self._kept: OrderedDict[int, np.ndarray | None] = OrderedDict()
        self._map: np.ndarray | None = None
        if page.is_memmappable and page.dtype is not None:
            offset = page.dataoffsets[0] + skipped
            dtype = page.dtype.newbyteorder(page.parent.byteorder)
            self._map = np.memmap(page.parent.filehandle.path, dtype, "r", offset, page.shaped)
        elif skipped:
            raise ImageError(f"{page.parent.filehandle.path} has planes without pages, packed; they cannot be read")

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The stored values ``(h, w, S)`` of a rectangle inside the page, colours last; S is 1 without colours."""
        if self._map is not None:
            return self._channels_last(np.asarray(self._map[:, 0, rows, columns]))
        height, width = rows.stop - rows.start, columns.stop - columns.start
        block = np.full((self._samples, height, width, self._contiguous), self._page.nodata, dtype=self._page.dtype)
        for index, sample, top, left in self._touched(rows, columns):
            segment = self._segment(index)
            if segment is None:  # left out of the file: all of it is `nodata`
                continue
            bottom, right = top + segment.shape[0], left + segment.shape[1]
            y0, y1 = max(top, rows.start), min(bottom, rows.stop)
            x0, x1 = max(left, columns.start), min(right, columns.stop)
            part = segment[y0 - top : y1 - top, x0 - left : x1 - left]
            block[sample, y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = part
        return self._channels_last(block)

    def close(self) -> None:
        """Let go of what is kept in memory, and of the map."""
        self._kept.clear()
        self._map = None

    def _channels_last(self, block: np.ndarray) -> np.ndarray:
        """From ``(S, h, w, 1)`` or ``(1, h, w, S)`` to ``(h, w, S)``."""
        return np.moveaxis(block[..., 0], 0, -1) if self._samples > 1 else block[0]

    def _touched(self, rows: slice, columns: slice) -> Iterator[tuple[int, int, int, int]]:
        """Number, sample, top and left of every segment that shares a pixel with the rectangle."""
        page = self._page
        high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self._width)
        high = min(high, self._height)  # a single strip may claim any number of rows
        down, across = -(-self._height // high), -(-self._width // wide)
        for sample in range(self._samples):
            for y in range(rows.start // high, (rows.stop - 1) // high + 1):
                for x in range(columns.start // wide, (columns.stop - 1) // wide + 1):
                    yield (sample * down + y) * across + x, sample, y * high, x * wide

    def _segment(self, index: int) -> np.ndarray | None:
        """The decoded pixels ``(h, w, S)`` of a tile or strip."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        page = self._page
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = None
        if count:
            page.parent.filehandle.seek(offset)
            data = page.parent.filehandle.read(count)
            self._check_length(data)
        decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        self._kept[index] = decoded = None if decoded is None else decoded[0]  # the axis of depth
        size = sum(segment.nbytes for segment in self._kept.values() if segment is not None)
        while size > _KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            size -= 0 if dropped is None else dropped.nbytes
        return decoded

    def _check_length(self, data: bytes) -> None:
        """Refuse a packed tile or strip that unpacks to far more than its pixels: it would fill the memory."""
        page = self._page
        if page.compression not in _DEFLATE:
            return
        high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self._width)
        pixels = min(high, max(self._height, page.tilelength)) * wide * self._contiguous
        limit = 2 * pixels * -(-page.bitspersample // 8) + _SLACK_BYTES
        if len(zlib.decompressobj().decompress(data, limit + 1)) > limit:
            raise ImageError(
                f"{page.parent.filehandle.path} holds a tile or strip of {pixels:,} pixels that unpacks to more than "
                f"{limit:,} bytes; it seems damaged"
            )
