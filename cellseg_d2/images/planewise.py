"""Files of microscopes of which a plane is read as a whole."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np

from cellseg_d2.images.grey import grey_from_channels, plain_dtype
from cellseg_d2.images.stored import StoredImage

# What is kept of the planes that were read last, since a plane is looked at in several windows; one is always kept.
_KEPT_BYTES = 2**28


class PlanewiseImage(StoredImage):
    """An image whose planes are kept for the next rectangles of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple, np.ndarray] = OrderedDict()

    @abstractmethod
    def _plane(self, place: Mapping[str, int]) -> np.ndarray:
        """The stored values ``(H, W)`` of a plane, or with its colours, red first, ``(H, W, 3)``."""

    def grey(self, place: Mapping[str, int], rows: slice, columns: slice) -> np.ndarray:
        """See :meth:`StoredImage.grey`."""
        outside = {name: number for name, number in place.items() if name != "S"}
        key = tuple(outside.items())
        if key not in self._kept:
            self._kept[key] = self._plane(outside)
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(plane.nbytes for plane in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return grey_of_block(self._kept[key][rows, columns], place)

    def close(self) -> None:
        """Let go of the planes; those who have a file close it."""
        self._kept.clear()


def grey_of_block(block: np.ndarray, place: Mapping[str, int]) -> np.ndarray:
    """Grey values ``(h, w)`` of ``(h, w)``, or of colours ``(h, w, S)``, of which ``place`` may name one."""
    if block.ndim == 3 and "S" not in place:
        return grey_from_channels(block)
    return plain_dtype(block[:, :, place["S"]] if block.ndim == 3 else block)
