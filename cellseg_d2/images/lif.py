"""Leica's LIF, by liffile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from liffile import LifFile
from liffile import LifImage as StoredLifImage

from cellseg_d2.images.axes import Layout, axis_names, choose_scene
from cellseg_d2.images.errors import ImageError, check_claim, closed_on_error
from cellseg_d2.images.grey import grey_dtype
from cellseg_d2.images.planewise import PlanewiseImage


class LifImage(PlanewiseImage):
    """One image of a LIF.

    Args:
        path: of the file.
        scene: number, from 0, or name of one of several images, with the names of folders before it.

    Raises:
        AxesError: there are several images of which one must be chosen.
        ImageError: it is none of rows and columns.
    """

    def __init__(self, path: Path, scene: int | str | None = None):
        super().__init__()
        self.origin = path
        self._file = LifFile(path)
        with closed_on_error(self):
            images = [image for image in self._file.images if isinstance(image, StoredLifImage)]
            if not images:
                raise ImageError(f"{path} holds no image")
            names = [image.path.rsplit("/", 1)[-1] for image in images]
            names = names if len(set(names)) == len(names) else [image.path for image in images]
            self._image = images[choose_scene(scene, names, path)]
            self.layout = self._layout()
        self.dtype = grey_dtype(np.dtype(self._image.dtype))

    def _layout(self) -> Layout:
        dims, shape = self._image.dims, self._image.shape
        check_claim(self.origin, shape, math.prod(shape), Path(self.origin).stat().st_size)
        names = axis_names(dims)
        if names is None or not {"Y", "X"} <= set(self._image.frames.frame_dims) <= {"Y", "X", "S"}:
            raise ImageError(f"{self.origin} holds an image with the axes {', '.join(dims)}, not of rows and columns")
        self._words = dict(zip(names, dims, strict=True))
        return Layout(names, shape, self._channels())

    def _channels(self) -> tuple[str, ...]:
        """The dyes of the channels, or else the colours in which they are shown."""
        described = self._image.xml_element.findall("./Data/Image/ImageDescription/Channels/ChannelDescription")
        names = []
        for channel in described:
            told = {entry.findtext("Key"): entry.findtext("Value") for entry in channel.iter("ChannelProperty")}
            names.append(told.get("DyeName") or channel.get("LUTName") or "")
        return tuple(names)

    def _plane(self, place: Mapping[str, int]) -> np.ndarray:
        indices: dict[str, Any] = {self._words[name]: number for name, number in place.items()}
        plane = self._image.frame(**indices)
        order = [name for name in self._image.frames.frame_dims if name != "S"]
        return plane if order == ["Y", "X"] else plane.swapaxes(0, 1)

    def pixel_um(self) -> tuple[float, float] | None:
        """See :meth:`StoredImage.pixel_um`; LIF counts in metres, from the first pixel's middle to that of the last."""
        places = [self._image.coords.get(axis) for axis in "XY"]
        sides = [(abs(p[-1] - p[0]) / (len(p) - 1)) * 1e6 for p in places if p is not None and len(p) > 1]
        return (sides[0], sides[1]) if len(sides) == 2 else None

    def close(self) -> None:
        """See :meth:`StoredImage.close`."""
        super().close()
        self._file.close()
