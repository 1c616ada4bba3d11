"""Zeiss' CZI, by Zeiss' own library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pylibCZIrw import czi

from cellseg_d2.images.axes import Layout, choose_scene
from cellseg_d2.images.errors import ImageError, closed_on_error
from cellseg_d2.images.grey import grey_dtype
from cellseg_d2.images.planewise import grey_of_block
from cellseg_d2.images.stored import StoredImage

_TYPES = {"8": np.uint8, "24": np.uint8, "16": np.uint16, "48": np.uint16, "32Float": np.float32, "96Float": np.float32}


class CziImage(StoredImage):
    """One scene of a CZI in full resolution, its tiles put together; what no tile covers is 0.

    Args:
        path: of the file.
        scene: number, from 0, or name of one of several scenes.

    Raises:
        AxesError: there are several scenes of which one must be chosen.
        ImageError: it holds values that are no grey or colours.
    """

    def __init__(self, path: Path, scene: int | str | None = None):
        self.origin = path
        self._file = czi.CziReader(str(path))
        with closed_on_error(self):
            self._open(scene)

    def _open(self, scene: int | str | None) -> None:
        scenes = self._file.scenes_bounding_rectangle_no_pyramid
        self._scene = None
        self._box = self._file.total_bounding_rectangle_no_pyramid
        numbers = sorted(scenes) or [None]
        names = {str(entry.get("@Index", n)): entry.get("@Name", "") for n, entry in enumerate(self._told("S"))}
        chosen = choose_scene(scene, [names.get(str(number), "") for number in numbers], self.origin)
        if scenes:
            self._scene = numbers[chosen]
            self._box = scenes[self._scene]
        kinds = set(self._file.pixel_types.values())
        self._is_coloured = all(kind.startswith("Bgr") for kind in kinds)
        types = [_TYPES.get(kind.removeprefix("Gray").removeprefix("Bgr")) for kind in kinds]
        if not kinds or None in types or self._is_coloured != any(kind.startswith("Bgr") for kind in kinds):
            raise ImageError(f"{self.origin} holds pixels of a kind that cannot be read ({', '.join(sorted(kinds))})")
        self.dtype = grey_dtype(np.result_type(*(kind for kind in types if kind is not None)))
        bounds = self._file.total_bounding_box_no_pyramid
        self._starts = {name: start for name, (start, _) in bounds.items() if name not in "YX"}
        shape = [stop - start for name, (start, stop) in bounds.items() if name not in "YX"]
        names_of_axes = "".join(self._starts) + "YX" + ("S" if self._is_coloured else "")
        colours = (3,) if self._is_coloured else ()
        channels = tuple(str(entry.get("@Name", "")) for entry in self._told("C"))
        self.layout = Layout(names_of_axes, (*shape, self._box.h, self._box.w, *colours), channels)

    def grey(self, place: Mapping[str, int], rows: slice, columns: slice) -> np.ndarray:
        """See :meth:`StoredImage.grey`."""
        plane = {name: start + place[name] for name, start in self._starts.items()}
        region = (self._box.x + columns.start, self._box.y + rows.start)
        region += (columns.stop - columns.start, rows.stop - rows.start)
        block = self._file.read(roi=region, plane=plane, scene=self._scene)
        return grey_of_block(block[:, :, ::-1] if self._is_coloured else block[:, :, 0], place)

    def pixel_um(self) -> tuple[float, float] | None:
        """See :meth:`StoredImage.pixel_um`."""
        distances = _entries(self._file.metadata, "ImageDocument", "Metadata", "Scaling", "Items", "Distance")
        metres = {entry.get("@Id"): float(entry.get("Value") or 0) for entry in distances}
        return (metres["X"] * 1e6, metres["Y"] * 1e6) if {"X", "Y"} <= metres.keys() else None

    def close(self) -> None:
        """See :meth:`StoredImage.close`."""
        self._file.close()

    def _told(self, axis: str) -> list[dict]:
        """What metadata say about each channel, or scene."""
        names = {"C": ("Channels", "Channel"), "S": ("S", "Scenes", "Scene")}[axis]
        image = ("ImageDocument", "Metadata", "Information", "Image", "Dimensions")
        return _entries(self._file.metadata, *image, *names)


def _entries(told: Any, *names: str) -> list[dict]:
    """The entries at a place of metadata, of which one alone is no list."""
    for name in names:
        told = told.get(name) if isinstance(told, dict) else None
    entries = told if isinstance(told, list) else [told]
    return [entry for entry in entries if isinstance(entry, dict)]
