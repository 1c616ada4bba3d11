"""Many masks of one image, overlapping or not, as a few label images.

One full-size mask per cell costs memory and time in proportion to cells × image. Real cells overlap little, so the
masks of hundreds of them fit into a few integer images: *layers*, within each of which no two cells share a pixel.
What must be done to all masks, such as a rotation, is then done once per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from cellseg_d2.masks.crop import MaskCrop, pixel_positions
from cellseg_d2.masks.overlaps import clip_crop
from cellseg_d2.masks.rle import decode_coco_many, encode_coco, equal_runs

# Labels a layer may hold. uint16 uses half its range, so that torch, whose uint16 can do little, may read it as int16.
MAX_LABEL: dict[np.dtype, int] = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 32767}


@dataclass(frozen=True, eq=False)
class LabelLayers:
    """Masks of ``N`` cells in ``L`` label images. Treat the arrays as constant: boxes and areas are remembered.

    Cell ``i`` is where ``layers[layer_of_cell[i]] == label_of_cell[i]``; it may be empty. Labels count anew in every
    layer, so that a byte is enough for hundreds of cells. Labels that belong to no cell are background.

    Attributes:
        layers: uint8 or uint16 ``(L, H, W)``, ``L`` ≥ 1, 0 for background.
        layer_of_cell: int64 ``(N,)``, the one layer in which the cell is painted.
        label_of_cell: int64 ``(N,)``, its label there, from 1 on. No two cells share layer and label.

    Example:
        >>> crops = [MaskCrop(0, 0, np.ones((2, 3), bool)), MaskCrop(1, 2, np.ones((1, 2), bool))]
        >>> two = LabelLayers.from_crops(crops, height=2, width=4)
        >>> two.layers.tolist()
        [[[1, 1, 1, 0], [1, 1, 1, 0]], [[0, 0, 0, 0], [0, 0, 1, 1]]]
        >>> two.boxes.tolist()
        [[0, 0, 3, 2], [2, 1, 4, 2]]
    """

    layers: np.ndarray
    layer_of_cell: np.ndarray
    label_of_cell: np.ndarray

    @classmethod
    def from_crops(cls, crops: Sequence[MaskCrop], height: int, width: int) -> LabelLayers:
        """From ``N`` crops in an image of ``height`` × ``width`` pixels. What lies outside the image is cut off."""
        positions, cells = pixel_positions([clip_crop(crop, height, width) for crop in crops], width)
        return _paint(positions, cells, len(crops), height, width)

    @classmethod
    def from_coco(cls, rles: Sequence[dict], height: int, width: int) -> LabelLayers:
        """From ``N`` COCO RLEs, straight from their run lengths.

        Raises:
            cellseg_d2.masks.rle.RLEError: a mask is of another size than the image, or its counts are damaged.
        """
        runs, cells = decode_coco_many(rles, height, width)
        lengths = runs[:, 1]
        positions = np.arange(lengths.sum()) + np.repeat(runs[:, 0] - (np.cumsum(lengths) - lengths), lengths)
        x, y = np.divmod(positions, height)
        return _paint(y * width + x, np.repeat(cells, lengths), len(rles), height, width)

    def __post_init__(self) -> None:
        shape, dtype = self.layers.shape, self.layers.dtype
        if len(shape) != 3 or 0 in shape or dtype not in MAX_LABEL:
            raise ValueError(f"layers must be (L, H, W) of uint8 or uint16, not {shape} of {dtype}")
        if len(self.layer_of_cell) != len(self.label_of_cell):
            raise ValueError(f"{len(self.layer_of_cell)} cells have layers, but {len(self.label_of_cell)} have labels")
        if len(self) and not 0 <= self.layer_of_cell.min() <= self.layer_of_cell.max() < shape[0]:
            raise ValueError(f"layer_of_cell names a layer that is not one of the {shape[0]}")
        if len(self) and not 0 < self.label_of_cell.min() <= self.label_of_cell.max() <= MAX_LABEL[dtype]:
            raise ValueError(f"label_of_cell must be 1…{MAX_LABEL[dtype]}")

    def __len__(self) -> int:
        """Number of cells, the empty ones included."""
        return len(self.layer_of_cell)

    @property
    def height(self) -> int:
        """Of the image in pixels."""
        return self.layers.shape[1]

    @property
    def width(self) -> int:
        """Of the image in pixels."""
        return self.layers.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.layers.nbytes + self.layer_of_cell.nbytes + self.label_of_cell.nbytes

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each cell, int64 ``(N,)``."""
        areas = np.zeros(len(self), dtype=np.int64)
        for layer, own, labels in self._cells_by_layer():
            areas[own] = np.bincount(layer.ravel(), minlength=labels.max(initial=0) + 1)[labels]
        return areas

    @cached_property
    def boxes(self) -> np.ndarray:
        """Tight boxes ``(x0, y0, x1, y1)`` in pixels, the end exclusive, int64 ``(N, 4)``; zeros for an empty cell."""
        boxes = np.zeros((len(self), 4), dtype=np.int64)
        for layer, own, labels in self._cells_by_layer():
            places = ndimage.find_objects(layer, max_label=labels.max(initial=1))
            for cell, label in zip(own.tolist(), labels.tolist(), strict=True):
                if places[label - 1] is not None:
                    rows, columns = places[label - 1]
                    boxes[cell] = columns.start, rows.start, columns.stop, rows.stop
        return boxes

    def crop(self, cell: int) -> MaskCrop:
        """The tight crop of one cell; 0 × 0 when it is empty."""
        x0, y0, x1, y1 = self.boxes[cell].tolist()
        return MaskCrop(y0, x0, self.layers[self.layer_of_cell[cell], y0:y1, x0:x1] == self.label_of_cell[cell])

    def crops(self) -> list[MaskCrop]:
        """The tight crops of all cells."""
        return [self.crop(cell) for cell in range(len(self))]

    def to_coco(self) -> list[dict]:
        """Compressed COCO RLEs ``{"size", "counts"}`` of all cells."""
        cells, runs = [], []
        for layer, own, labels in self._cells_by_layer():
            cell_of_label = np.full(MAX_LABEL[layer.dtype] + 1, -1, dtype=np.int64)
            cell_of_label[labels] = own
            own_runs, found = equal_runs(layer.T.ravel())
            cell = cell_of_label[found]
            cells.append(cell[cell >= 0])
            runs.append(own_runs[cell >= 0])
        cells = np.concatenate(cells)
        order = np.argsort(cells, kind="stable")
        borders = np.searchsorted(cells[order], np.arange(1, len(self)))
        of_cells = np.split(np.concatenate(runs)[order], borders)[: len(self)]
        return [encode_coco(own, self.height, self.width) for own in of_cells]

    def map_layers(self, function: Callable[[np.ndarray], np.ndarray]) -> LabelLayers:
        """Apply a geometric transform to all masks: once per layer.

        Args:
            function: takes labels ``(H, W)`` and returns labels ``(H', W')`` of the same dtype. It may move labels and
                drop them but not mix them: interpolation must be by the nearest neighbour.

        Returns:
            The same cells in the same order; those that the transform moved out of the image are empty.
        """
        mapped = np.stack([function(layer) for layer in self.layers])
        if mapped.dtype != self.layers.dtype:
            raise ValueError(f"the transform turned labels from {self.layers.dtype} into {mapped.dtype}")
        return LabelLayers(mapped, self.layer_of_cell, self.label_of_cell)

    def select(self, keep: np.ndarray) -> LabelLayers:
        """The cells that ``keep`` names, at no cost: the layers are shared.

        Args:
            keep: bool ``(N,)``, or distinct indices ``(M,)`` in the order that the result is to have.
        """
        kept = np.arange(len(self))[keep]
        if len(np.unique(kept)) < len(kept):
            raise ValueError("a cell can be selected only once")
        return LabelLayers(self.layers, self.layer_of_cell[kept], self.label_of_cell[kept])

    def _cells_by_layer(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Each layer ``(H, W)`` with the cells painted in it ``(n,)`` and their labels ``(n,)``."""
        owned = [np.flatnonzero(self.layer_of_cell == index) for index in range(len(self.layers))]
        return [(layer, own, self.label_of_cell[own]) for layer, own in zip(self.layers, owned, strict=True)]


def _paint(positions: np.ndarray, cells: np.ndarray, number: int, height: int, width: int) -> LabelLayers:
    """Layers from the pixels of all cells.

    Args:
        positions: row-major positions in the image ``(P,)``; a cell has no position twice.
        cells: the cell of each position ``(P,)``.
        number: number of cells, ``N``.
        height, width: size of the image in pixels.
    """
    pairs = _overlapping_pairs(positions, cells, number, height * width)
    # Whatever takes fewer bytes; among equals, what has fewer layers to transform.
    choices = [(dtype, _assign_layers(pairs, number, most)) for dtype, most in MAX_LABEL.items()]
    dtype, layer_of_cell = min(choices, key=lambda c: (c[0].itemsize * (c[1].max(initial=0) + 1), c[1].max(initial=0)))
    # Number the cells of each layer.
    by_layer = np.argsort(layer_of_cell, kind="stable")
    per_layer = np.bincount(layer_of_cell, minlength=1)
    label_of_cell = np.empty(number, dtype=np.int64)
    label_of_cell[by_layer] = np.arange(number) - np.repeat(np.cumsum(per_layer) - per_layer, per_layer) + 1
    layers = np.zeros((len(per_layer), height * width), dtype=dtype)
    layers[layer_of_cell[cells], positions] = label_of_cell[cells]
    return LabelLayers(layers.reshape(-1, height, width), layer_of_cell, label_of_cell)


def _overlapping_pairs(positions: np.ndarray, cells: np.ndarray, number: int, size: int) -> np.ndarray:
    """Pairs of cells that share a pixel, each once, int64 ``(K, 2)``. For the arguments see :func:`_paint`."""
    depth = np.bincount(positions, minlength=size)
    contested = np.flatnonzero(depth[positions] > 1)
    contested = contested[np.argsort(positions[contested], kind="stable")]
    positions, cells = positions[contested], cells[contested]
    keys = [np.zeros(0, dtype=np.int64)]
    # The cells of one pixel are neighbours now, at most depth - 1 places apart.
    for apart in range(1, depth.max()):
        same = positions[apart:] == positions[:-apart]
        keys.append(cells[:-apart][same] * number + cells[apart:][same])
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), max(number, 1)), axis=1)


def _assign_layers(pairs: np.ndarray, number: int, most: int) -> np.ndarray:
    """Layers int64 ``(N,)`` such that no pair shares one, at most ``most`` cells in each: greedy graph colouring.

    Cells that overlap most others come first (Welsh and Powell 1967), each on the first layer that is free. On real
    images that needs fewer layers than taking the cells as listed or by size.
    """
    neighbours: list[set[int]] = [set() for _ in range(number)]
    for a, b in pairs.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    layers = [-1] * number
    room: list[int] = []  # of each layer
    for cell in sorted(range(number), key=lambda cell: -len(neighbours[cell])):
        taken = {layers[other] for other in neighbours[cell]}
        layer = next((layer for layer, left in enumerate(room) if left and layer not in taken), len(room))
        if layer == len(room):
            room.append(most)
        layers[cell] = layer
        room[layer] -= 1
    return np.array(layers, dtype=np.int64)
