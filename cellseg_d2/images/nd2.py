"""Nikon's ND2, by the package nd2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from nd2 import ND2File

from cellseg_d2.images.axes import Layout, axis_names, choose_scene
from cellseg_d2.images.errors import ImageError, check_claim, closed_on_error
from cellseg_d2.images.grey import grey_dtype
from cellseg_d2.images.planewise import PlanewiseImage


class Nd2Image(PlanewiseImage):
    """One position of an ND2.

    Args:
        path: of the file.
        scene: number, from 0, or name of one of several positions.

    Raises:
        AxesError: there are several positions of which one must be chosen.
        ImageError: it is none of rows and columns.
    """

    def __init__(self, path: Path, scene: int | str | None = None):
        super().__init__()
        self.origin = path
        self._file = ND2File(path)
        with closed_on_error(self):
            self._open(scene)

    def _open(self, scene: int | str | None) -> None:
        sizes = dict(self._file.sizes)
        check_claim(self.origin, tuple(sizes.values()), math.prod(sizes.values()), Path(self.origin).stat().st_size)
        # Axes outside of what is stored together, in the order of the frames.
        self._loops = {name: length for name, length in sizes.items() if name not in "CYXS"}
        self._position = 0
        if positions := sizes.pop("P", 0):
            self._position = choose_scene(scene, self._position_names(positions), self.origin)
        elif scene is not None:
            choose_scene(scene, [""], self.origin)
        names = axis_names(list(sizes))
        if names is None:
            raise ImageError(f"{self.origin} holds an image with the axes {', '.join(sizes)}, not of rows and columns")
        self._words = dict(zip(names, sizes, strict=True))
        channels = tuple(channel.channel.name for channel in self._file.metadata.channels or ())
        self.layout = Layout(names, tuple(sizes.values()), channels)
        self.dtype = grey_dtype(np.dtype(self._file.dtype))

    def _position_names(self, count: int) -> list[str]:
        loops = [loop for loop in self._file.experiment if loop.type == "XYPosLoop"]
        names = [point.name or "" for point in loops[0].parameters.points] if loops else []
        return names if len(names) == count else [""] * count

    def _plane(self, place: Mapping[str, int]) -> np.ndarray:
        own = {self._words[name]: number for name, number in place.items()} | {"P": self._position}
        loops = [own[name] for name in self._loops]
        frame = self._file.read_frame(int(np.ravel_multi_index(loops, list(self._loops.values()))) if loops else 0)
        return np.array(frame[own["C"]] if self.layout.length("C") > 1 else frame)

    def pixel_um(self) -> tuple[float, float] | None:
        """See :meth:`StoredImage.pixel_um`."""
        volumes = [channel.volume for channel in self._file.metadata.channels or ()]
        if not volumes or not all(volumes[0].axesCalibrated[:2]):
            return None
        return volumes[0].axesCalibration[0], volumes[0].axesCalibration[1]

    def close(self) -> None:
        """See :meth:`StoredImage.close`."""
        super().close()
        self._file.close()
