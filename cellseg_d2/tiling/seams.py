"""Merge the detections of overlapping tiles so that every cell is found once.

A detection belongs to the tile in whose core the centre of its box lies. Cores meet in the middle of the overlap, from
which it follows, side by side: a cell that any tile sees whole is seen whole by the tile that it belongs to, and what
a tile sees of a cell beyond its border belongs to it only if its neighbour does not see all of that cell either. Pieces
of cells are thus left only of those that no tile sees whole; pieces that agree where their tiles overlap are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cellseg_d2.detections.detections import Detections, SoftCrop
from cellseg_d2.detections.fusion import concatenate
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import box_pairs, shared_pixels, window_crop
from cellseg_d2.tiling.grid import Tile

# Two tiles mean the same cell from this IoU on, counted where both see.
_SAME_CELL = 0.5
# A view that holds this share of all that was seen of a cell holds the cell.
_WHOLE = 0.9
# Two views of a cell put its centre in slightly different places: this share of its size, and a pixel.
_CENTRE_SLACK = 0.1
# A box that ends this close to its tile's border, in pixels or as a share of its size, may go on beyond it.
_EDGE_PIXELS, _EDGE_SHARE = 4, 0.05


@dataclass(frozen=True, eq=False)
class _TilePart:
    """Detections kept of one tile.

    Attributes:
        detections: ``N``, in coordinates of the image.
        tile: index of the tile.
        depth: float64 ``(N,)``, pixels from the box's centre to the border of the core, negative outside.
        cut: bool ``(N,)``, whether the box ends at the tile's border, inside the image.
    """

    detections: Detections
    tile: int
    depth: np.ndarray
    cut: np.ndarray


class TiledDetections:
    """Collects the detections of an image's tiles; keeps those that may count.

    Args:
        height, width: size of the image in pixels.
        tiles: all of its tiles.
        min_score: what is below this is only counted for the vote on the image's class.
    """

    def __init__(self, height: int, width: int, tiles: Sequence[Tile], min_score: float = 0.0):
        self.height, self.width = height, width
        self.tiles = list(tiles)
        self.parts: list[_TilePart] = []
        self._numbers = {tile: number for number, tile in enumerate(self.tiles)}
        self._min_score = min_score
        self._votes = np.zeros(0)

    def add(self, tile: Tile, detections: Detections) -> None:
        """Take the detections of one tile, in the tile's coordinates.

        Raises:
            ValueError: the detections are of an image of another size.
        """
        if (detections.height, detections.width) != (tile.height, tile.width):
            raise ValueError(
                f"the detections are of {detections.height} × {detections.width} pixels, the tile has "
                f"{tile.height} × {tile.width}"
            )
        boxes = (detections.boxes + np.array([tile.left, tile.top] * 2)).astype(np.float32).reshape(-1, 4)
        depth = self._depth(tile, boxes)
        owned = depth >= 0
        self._vote(detections.classes[owned], detections.scores[owned])
        sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        keep = (depth >= -(1 + _CENTRE_SLACK * sides)) & (detections.scores >= self._min_score)
        masks = detections.masks
        if not isinstance(masks, np.ndarray):
            masks = [MaskCrop(crop.top + tile.top, crop.left + tile.left, crop.mask) for crop in masks]
        whole_image = replace(detections, height=self.height, width=self.width, boxes=boxes, masks=masks)
        part = _TilePart(whole_image.select(keep), self._numbers[tile], depth[keep], self._cut(tile, boxes)[keep])
        self.parts.append(part)

    def vote_class(self) -> int | None:
        """The class with the largest sum of scores, as :func:`cellseg_d2.detections.detections.vote_class`."""
        return int(self._votes.argmax()) if len(self._votes) else None

    def _vote(self, classes: np.ndarray, scores: np.ndarray) -> None:
        votes = np.bincount(classes, weights=scores)
        both = np.zeros(max(len(votes), len(self._votes)))
        both[: len(self._votes)] += self._votes
        both[: len(votes)] += votes
        self._votes = both

    def _depth(self, tile: Tile, boxes: np.ndarray) -> np.ndarray:
        x, y = ((boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2).T
        x0, y0, x1, y1 = tile.core
        depth = np.full(len(boxes), np.inf)
        if x0 > 0:
            depth = np.minimum(depth, x - x0)
        if y0 > 0:
            depth = np.minimum(depth, y - y0)
        # A centre on the border of two cores belongs to the right or lower one.
        if x1 < self.width:
            depth = np.minimum(depth, np.nextafter(x1, 0) - x)
        if y1 < self.height:
            depth = np.minimum(depth, np.nextafter(y1, 0) - y)
        return depth

    def _cut(self, tile: Tile, boxes: np.ndarray) -> np.ndarray:
        margin = np.maximum(_EDGE_PIXELS, _EDGE_SHARE * (boxes[:, 2:] - boxes[:, :2]))
        x0, y0, x1, y1 = tile.box
        low = (boxes[:, :2] < np.array([x0, y0]) + margin) & (np.array([x0, y0]) > 0)
        high = (boxes[:, 2:] > np.array([x1, y1]) - margin) & (np.array([x1, y1]) < [self.width, self.height])
        return (low | high).any(axis=1)


@dataclass(frozen=True, eq=False)
class MergedDetections:
    """The detections of a whole image, each cell once.

    Attributes:
        detections: in coordinates of the image, in the order of the tiles. A cell that was put together from pieces has
            the box, score and class of the largest one; if masks are probabilities, also its mask.
        joined: the whole mask of such cells, by their index; nothing if masks are binary and stand in ``detections``.
    """

    detections: Detections
    joined: dict[int, SoftCrop]

    def pasted(self) -> Sequence[SoftCrop] | None:
        """The masks on the pixels of the image, made when asked for; None if all are those of ``detections``."""
        return _PastedMasks(self.detections, self.joined) if self.joined else None

    def on_grids(self) -> Detections:
        """The detections, with the whole mask of a cell that was put together resampled to the grid of its box."""
        masks, boxes = self.detections.masks, self.detections.boxes.copy()
        if not self.joined or not isinstance(masks, np.ndarray):
            return self.detections
        masks = masks.copy()
        for index, soft in self.joined.items():
            height, width = soft.probability.shape
            boxes[index] = soft.left, soft.top, soft.left + width, soft.top + height
            masks[index] = cv2.resize(soft.probability, masks.shape[:0:-1], interpolation=cv2.INTER_AREA)
        return replace(self.detections, boxes=boxes, masks=masks)


class _PastedMasks(Sequence[SoftCrop]):
    def __init__(self, detections: Detections, joined: dict[int, SoftCrop]):
        self._detections, self._joined = detections, joined

    def __len__(self) -> int:
        return len(self._detections)

    @overload
    def __getitem__(self, index: int) -> SoftCrop: ...

    @overload
    def __getitem__(self, index: slice) -> list[SoftCrop]: ...

    def __getitem__(self, index: int | slice) -> SoftCrop | list[SoftCrop]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        if index in self._joined:
            return self._joined[index]
        return next(self._detections.select(np.array([index])).soft_crops())


def merge_tiles(found: TiledDetections) -> MergedDetections:
    """Merge the tiles' detections, which are taken out of ``found`` so that they are not in memory twice.

    Of several tiles' views of one cell the one deepest in its core is kept, unless all cut the cell: then they are
    joined, with the highest of their probabilities where they overlap.
    """
    parts, found.parts = found.parts, []
    tile_of = np.repeat([part.tile for part in parts], [len(part.depth) for part in parts])
    depth = np.concatenate([part.depth for part in parts])
    cut = np.concatenate([part.cut for part in parts])
    detections = concatenate([part.detections for part in parts])
    del parts
    if len(found.tiles) == 1 or len(detections) == 0:
        return MergedDetections(detections, {})
    views = _Views(detections, tile_of, [tile.box for tile in found.tiles])
    keep = _drop_seen_by_owner(views, depth)
    joined: dict[int, SoftCrop] = {}
    for members in _same_cells(views, keep & (depth >= 0)):
        areas = np.array([views.crops[i].area for i in members])
        union = _union(list(detections.select(members).soft_crops()))
        whole = members[~cut[members] & (areas >= _WHOLE * np.count_nonzero(union.probability >= 0.5))]
        best = whole[depth[whole].argmax()] if len(whole) else members[areas.argmax()]
        keep[members] = False
        keep[best] = True
        if len(whole) == 0 and isinstance(detections.masks, np.ndarray):
            joined[int(best)] = union
        elif len(whole) == 0:
            detections.masks[best] = union.at_least(0.5)
    index = np.cumsum(keep) - 1
    return MergedDetections(detections.select(keep), {int(index[i]): soft for i, soft in joined.items()})


class _Views:
    """The detections of different tiles that might be of one cell.

    Attributes:
        classes, tile_of: int64 ``(N,)``.
        crops: binary masks of the detections that are in a pair, by their index.
        first, second: int64 ``(K,)``, pairs of detections from different tiles whose masks share a pixel.
        shared: int64 ``(K,)``, pixels that the masks share.
        iou: float64 ``(K,)``, of the masks where both tiles see.
    """

    def __init__(self, detections: Detections, tile_of: np.ndarray, windows: list[tuple[int, int, int, int]]):
        self.classes, self.tile_of = detections.classes, tile_of
        first, second = box_pairs(detections.boxes)
        across = tile_of[first] != tile_of[second]
        first, second = first[across], second[across]
        involved = np.unique(np.concatenate([first, second]))
        self.crops = dict(zip(involved.tolist(), detections.select(involved).crops(), strict=True))
        shared, iou = np.zeros(len(first), dtype=np.int64), np.zeros(len(first))
        for k, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            shared[k] = shared_pixels(self.crops[i], self.crops[j])
            if shared[k]:
                window = _intersection(windows[tile_of[i]], windows[tile_of[j]])
                seen = sum(window_crop(self.crops[n], window).area for n in (i, j))
                # Masks may fade out a little beyond their tiles, where only one of them is counted.
                iou[k] = min(1.0, shared[k] / max(seen - shared[k], 1))
        used = shared > 0
        self.first, self.second, self.shared, self.iou = first[used], second[used], shared[used], iou[used]


def _drop_seen_by_owner(views: _Views, depth: np.ndarray) -> np.ndarray:
    """Which detections stay, bool ``(N,)``: of those just outside of their core, the ones that nobody else sees."""
    keep = depth >= 0
    partners: dict[int, list[tuple[int, int]]] = {}
    for i, j, shared in zip(views.first.tolist(), views.second.tolist(), views.shared.tolist(), strict=True):
        partners.setdefault(i, []).append((j, shared))
        partners.setdefault(j, []).append((i, shared))
    outside = np.flatnonzero(depth < 0)
    for i in outside[np.argsort(-depth[outside], kind="stable")].tolist():
        own = partners.get(i, [])
        keep[i] = not any(keep[j] and shared > _SAME_CELL * views.crops[i].area for j, shared in own)
    return keep


def _same_cells(views: _Views, present: np.ndarray) -> list[np.ndarray]:
    """Groups of two or more detections that are of one cell, as ascending indices.

    Between two tiles each detection has one counterpart at most: the one of the same class, if there is one, with which
    it agrees best. A cell that reaches over several tiles links them all.
    """
    linked = np.flatnonzero((views.iou > _SAME_CELL) & present[views.first] & present[views.second])
    other_class = views.classes[views.first[linked]] != views.classes[views.second[linked]]
    taken: set[tuple[int, int]] = set()
    links = []
    for k in linked[np.lexsort((-views.iou[linked], other_class))].tolist():
        i, j = int(views.first[k]), int(views.second[k])
        sides = {(i, int(views.tile_of[j])), (j, int(views.tile_of[i]))}
        if not sides & taken:
            taken |= sides
            links.append((i, j))
    if not links:
        return []
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links), dtype=bool), (rows, columns)), shape=(len(present),) * 2)
    group = connected_components(graph, directed=False)[1]
    linked = np.unique(np.concatenate([rows, columns]))
    linked = linked[np.argsort(group[linked], kind="stable")]
    return np.split(linked, np.flatnonzero(np.diff(group[linked])) + 1)


def _union(crops: Sequence[SoftCrop]) -> SoftCrop:
    """The highest probability of several views of a cell at each pixel."""
    tops, lefts = [crop.top for crop in crops], [crop.left for crop in crops]
    bottom = max(crop.top + crop.probability.shape[0] for crop in crops)
    right = max(crop.left + crop.probability.shape[1] for crop in crops)
    union = np.zeros((bottom - min(tops), right - min(lefts)), dtype=np.float32)
    for crop, top, left in zip(crops, tops, lefts, strict=True):
        h, w = crop.probability.shape
        part = union[top - min(tops) :, left - min(lefts) :][:h, :w]
        np.maximum(part, crop.probability, out=part)
    return SoftCrop(min(tops), min(lefts), union)


def _intersection(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The part that two windows share; 0 × 0 where there is none."""
    x0, y0 = max(first[0], second[0]), max(first[1], second[1])
    return x0, y0, max(x0, min(first[2], second[2])), max(y0, min(first[3], second[3]))
