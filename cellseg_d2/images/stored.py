"""An image as it is stored, with all its axes, of which grey planes are read by rectangles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np

from cellseg_d2.images.axes import AxesError, Layout, renamed


class StoredImage(ABC):
    """What files of all kinds and arrays have in common.

    Files stay open until :meth:`close`, or to the end of a ``with`` block.

    Attributes:
        layout: names and lengths of the axes.
        dtype: of grey values: uint8, uint16 or float32. It follows from the type of the stored values alone, so that
            all planes and parts of an image have the same.
        origin: where the values come from, for messages: a path, or some words.
    """

    layout: Layout
    dtype: np.dtype
    origin: str | Path

    @abstractmethod
    def grey(self, place: Mapping[str, int], rows: slice, columns: slice) -> np.ndarray:
        """The grey values ``(h, w)`` of a rectangle inside one plane.

        Args:
            place: number along each axis but Y and X; colours become grey where S is left out.
            rows, columns: of the rectangle, with start and stop.
        """

    def pixel_um(self) -> tuple[float, float] | None:
        """Width and height of a pixel in micrometres, as metadata tell them; None where they tell none."""
        return None

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close the file, where there is one. Nothing can be read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RenamedImage(StoredImage):
    """A stored image by other names of its axes.

    Args:
        image: with rows and columns along Y and X; closed with this one.
        names: of its axes, see :func:`cellseg_d2.images.axes.renamed`.

    Raises:
        AxesError: they do not fit, or say that rows, columns or colours are elsewhere.
    """

    def __init__(self, image: StoredImage, names: str):
        self._image = image
        self.origin, self.dtype = image.origin, image.dtype
        self.layout = renamed(image.layout, names, image.origin)
        pairs = list(zip(self.layout.names, image.layout.names, strict=True))
        if any(new != old for new, old in pairs if {new, old} & {"Y", "X", "S"}):
            raise AxesError(
                f"{image.origin} has the axes {image.layout.names}: of these, Y, X and S stay what they are"
            )
        self._own = dict(pairs)

    def grey(self, place: Mapping[str, int], rows: slice, columns: slice) -> np.ndarray:
        """See :meth:`StoredImage.grey`."""
        return self._image.grey({self._own[name]: number for name, number in place.items()}, rows, columns)

    def pixel_um(self) -> tuple[float, float] | None:
        """See :meth:`StoredImage.pixel_um`."""
        return self._image.pixel_um()

    def close(self) -> None:
        """See :meth:`StoredImage.close`."""
        self._image.close()
