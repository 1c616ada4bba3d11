"""Outlines of masks as polygons along the edges of their pixels: exactly the mask, no pixel more or less.

Positions are ``(x, y)`` in pixels. Pixel (row ``j``, column ``i``) covers ``[i, i + 1] × [j, j + 1]``, as in ImageJ,
QuPath and COCO; its centre is ``(i + 0.5, j + 0.5)``. All corners are therefore whole numbers.

A ring is an int64 array ``(K, 2)`` of its corners in order, the first not repeated at the end. It does not touch
itself, and other rings at single corners only, so that shapely, JTS (QuPath) and ImageJ take it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage import draw

from cellseg_d2.masks.crop import MaskCrop


@dataclass(frozen=True, eq=False)
class Polygon:
    """One piece of a mask whose pixels are connected by their edges.

    Attributes:
        exterior: ring around the piece, its :func:`signed_area` is positive.
        holes: rings around the background that it encloses, their :func:`signed_area` is negative.
    """

    exterior: np.ndarray
    holes: tuple[np.ndarray, ...] = ()

    @property
    def rings(self) -> tuple[np.ndarray, ...]:
        """The exterior, then the holes."""
        return self.exterior, *self.holes

    @property
    def area(self) -> int:
        """Number of the piece's pixels."""
        return int(sum(signed_area(ring) for ring in self.rings))


def signed_area(ring: np.ndarray) -> float:
    """Area in square pixels that a ring ``(K, 2)`` encloses, by the shoelace formula.

    Returns:
        Above 0 where the ring runs from the x axis towards the y axis: clockwise on a screen, where y points down.
    """
    x, y = np.asarray(ring, dtype=np.float64).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def outline(crop: MaskCrop) -> list[Polygon]:
    """The polygons of a mask, in the reading order of their first corners; none of an empty mask.

    Pieces that only share a corner, as 8-connected masks have them, become polygons of their own.

    The time is proportional to the number of corners: only these are visited one by one. They are joined by a property
    of shapes with right angles: along each line of the grid, corners are in turn the start and the end of an edge.

    Example:
        >>> [polygon] = outline(MaskCrop(0, 5, np.ones((1, 3), bool)))
        >>> polygon.exterior.tolist(), polygon.area
        ([[5, 0], [8, 0], [8, 1], [5, 1]], 3)
    """
    rings = [np.add(ring, (crop.left, crop.top)) for ring in _rings(crop.mask)]
    areas = [signed_area(ring) for ring in rings]
    exteriors = [ring for ring, area in zip(rings, areas, strict=True) if area > 0]
    holes = [ring for ring, area in zip(rings, areas, strict=True) if area < 0]
    if len(exteriors) == 1 or not holes:
        return [Polygon(ring, tuple(holes)) for ring in exteriors]
    pieces = ndimage.label(crop.mask)[0]  # by edges
    own: dict[int, list[np.ndarray]] = {}
    for ring in holes:
        own.setdefault(_piece_along(ring, crop, pieces), []).append(ring)
    return [Polygon(ring, tuple(own.get(_piece_along(ring, crop, pieces), ()))) for ring in exteriors]


def _rings(mask: np.ndarray) -> list[np.ndarray]:
    """All rings of a mask in the reading order of their first corners; the mask is to the right of who walks along."""
    h, w = mask.shape
    padded = np.zeros((h + 2, w + 2), dtype=np.int8)
    padded[1:-1, 1:-1] = mask
    # The four pixels around each corner of the grid.
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    saddle = (nw == se) & (ne == sw) & (nw != ne)
    y, x = np.nonzero(((nw ^ ne ^ sw ^ se) == 1) | saddle)
    is_saddle = saddle[y, x]
    # At a saddle two pixels meet with their corners only. It counts twice, once for each of them.
    first = np.cumsum(1 + is_saddle) - (1 + is_saddle)
    y, x = np.repeat(y, 1 + is_saddle), np.repeat(x, 1 + is_saddle)
    second = first[is_saddle] + 1
    twin = np.full(len(x), -1)
    twin[second], twin[second - 1] = second - 1, second
    # In a row the first of the twins ends the edge from the left. In a column the one of the upper pixel ends the edge
    # from above: that is the first if this pixel is the left one, the second if it is the right one.
    order_in_column = np.zeros(len(x), dtype=np.int64)
    order_in_column[second] = 1
    swapped = second[ne[y[second], x[second]] == 1]
    order_in_column[swapped], order_in_column[swapped - 1] = 0, 1
    along_column = np.lexsort((order_in_column, y, x))
    beside, below = np.empty(len(x), dtype=np.int64), np.empty(len(x), dtype=np.int64)
    beside[0::2], beside[1::2] = np.arange(1, len(x), 2), np.arange(0, len(x), 2)
    below[along_column[0::2]], below[along_column[1::2]] = along_column[1::2], along_column[0::2]
    # A walk that starts at the left end of an edge goes along it if the mask is under it, else it comes back on it.
    under = (se[y, x] == 1).tolist()

    rings, visited = [], [False] * len(x)
    beside, below, twin = beside.tolist(), below.tolist(), twin.tolist()
    for start in range(0, len(x), 2):
        if visited[start]:
            continue
        walk, corner = [], start
        steps = (beside, below) if under[start] else (below, beside)
        while not visited[corner]:
            visited[corner] = True
            walk.append(corner)
            corner = steps[(len(walk) - 1) % 2][corner]
        rings += _without_touching(walk, twin)
    positions = np.stack([x, y], axis=1)
    return [positions[ring] for ring in sorted(rings, key=min)]


def _without_touching(walk: list[int], twin: list[int]) -> list[list[int]]:
    """Cut a closed walk where it comes to the same corner twice, into rings that do not touch themselves."""
    rings: list[list[int]] = []
    path: list[int] = []
    place: dict[int, int] = {}
    for corner in walk:
        if twin[corner] >= 0:
            if twin[corner] in place:
                cut = place[twin[corner]]
                rings.append(path[cut:])
                del path[cut:]
            place[corner] = len(path)
        path.append(corner)
    return [*rings, path]


def _piece_along(ring: np.ndarray, crop: MaskCrop, pieces: np.ndarray) -> int:
    """The label of the pixels on a ring's inner side."""
    along_row = 0 if ring[0, 1] == ring[1, 1] else 1
    (x0, y0), (x1, _) = np.subtract(ring[along_row : along_row + 2], (crop.left, crop.top))
    return int(pieces[y0, x0] if x1 > x0 else pieces[y0 - 1, x0 - 1])


def fill(rings: Sequence[np.ndarray], height: int, width: int) -> MaskCrop:
    """The mask of the pixels whose centres are inside an odd number of rings: the even-odd rule, by which a ring within
    another one is a hole. Inverse of :func:`outline`, whose rings may all be given at once.

    Args:
        rings: ``(K, 2)`` each, positions ``(x, y)`` in pixels, also between corners of pixels; what leaves the image is
            cut off.
        height, width: size of the image in pixels.

    Example:
        >>> fill([np.array([[5, 0], [8, 0], [8, 1], [5, 1]])], 4, 9).box
        (5, 0, 8, 1)
    """
    corners = np.concatenate([np.asarray(ring, dtype=np.float64) for ring in rings])
    x0, y0 = np.clip(np.floor(corners.min(axis=0)), 0, (width, height)).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)), 0, (width, height)).astype(int).tolist()
    mask = np.zeros((max(y1 - y0, 0), max(x1 - x0, 0)), dtype=bool)
    for ring in rings:
        # Positions of pixels' centres are whole numbers there.
        x, y = np.asarray(ring, dtype=np.float64).T - 0.5
        mask[draw.polygon(y - y0, x - x0, mask.shape)] ^= True
    return MaskCrop(y0, x0, mask).tight()
