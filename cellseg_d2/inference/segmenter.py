"""What turns an image into cells: the interface of one or several models, for images of any kind and size."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from torch import nn

from cellseg_d2.detections.detections import Detections
from cellseg_d2.detections.fusion import FusionParams, fuse
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.axes import PlaneChoice, choose_planes
from cellseg_d2.images.intensity import to_uint8
from cellseg_d2.images.lazy import ImageSource, PlaneSource, open_source, open_stored, sample_percentiles
from cellseg_d2.images.pixel_size import PixelSize, as_pixel_size, read_pixel_size
from cellseg_d2.images.stored import StoredImage
from cellseg_d2.inference.out_of_memory import Way, first_that_fits, on_cpu
from cellseg_d2.inference.scale import choose_scale, scale_for, with_neighbors
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.io.progress import track
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.tiling.grid import check_windows
from cellseg_d2.tiling.segment import segment_tiled

logger = logging.getLogger(__name__)

# Larger images are kept as the file or array that they come from: results do not hold a copy of their pixels.
_KEPT_PIXELS = 2**26
# Where memory is short, windows are halved down to this side, in pixels.
_SMALLEST_WINDOW = 256


class Segmenter(ABC):
    """One model, looking once or several times, or several models.

    Attributes:
        params: how detections become cells.
        fusion: how detections of several views are merged; across classes where ``params.vote`` says that an image
            holds one type only.
        class_names: one for each class.
        intensity, intensity_percentiles: see :func:`cellseg_d2.images.intensity.to_uint8`.
        tile: side in pixels of the windows in which a large image is looked at; None looks at any image as a whole, as
            a model must that resizes every image to one size.
        cell_diameter: in pixels, of the cells that the model knows best; 0 if that is not known.
        scales: at which the model looks at an image whose cells may have any size; see
            :mod:`cellseg_d2.inference.scale`.
        scale_neighbors: how many of ``scales`` on each side of the best one are merged with it.
        before_look: called before each look at an image or a window, at any scale; may raise to stop.
    """

    params: PostprocessParams
    fusion: FusionParams
    class_names: list[str]
    intensity: str = "auto"
    intensity_percentiles: tuple[float, float] = (0.1, 99.9)
    tile: int | None = None
    cell_diameter: float = 0.0
    scales: tuple[float, ...] = (1.0,)
    scale_neighbors: int = 0
    before_look: Callable[[], object] | None = None

    @abstractmethod
    def detect_views(self, image: np.ndarray, scale: float = 1.0) -> tuple[list[Detections], list[float]]:
        """What is detected in each view of an 8-bit image ``(H, W)``, in its coordinates, and the weight of each view.

        At ``scale`` 2 the network sees every cell twice as large as it usually would.
        """

    def networks(self) -> list[nn.Module]:
        """What can be moved to another device."""
        return []

    @property
    def glance_is_look(self) -> bool:
        """Whether :meth:`glance` gives all that the model sees at that scale."""
        return True

    def settings(self) -> dict[str, object]:
        """All that decides about the results beside the image: with equal settings they are equal."""
        names = (
            "class_names",
            "intensity",
            "intensity_percentiles",
            "tile",
            "cell_diameter",
            "scales",
            "scale_neighbors",
        )
        return {
            "kind": type(self).__name__,
            **{name: getattr(self, name) for name in names},
            "postprocess": asdict(self.params),
        }

    def detect(self, image: np.ndarray) -> Detections:
        """Everything that is detected, before any threshold but the configuration's own.

        Args:
            image: grey ``(H, W)`` of any numeric type.
        """
        return self._look(to_uint8(image, self.intensity, self.intensity_percentiles), 1.0)

    def glance(self, image: np.ndarray, scale: float) -> Detections:
        """What is detected in an 8-bit image at a scale that may not be the best; one view is enough to compare."""
        return self._look(image, scale)

    def _look(self, image: np.ndarray, scale: float) -> Detections:
        if self.before_look is not None:
            self.before_look()
        return self._fused(*self.detect_views(image, scale))

    def _fused(self, views: list[Detections], weights: list[float] | None = None) -> Detections:
        if len(views) == 1:
            return views[0]
        return fuse(views, replace(self.fusion, across_classes=self.params.vote), weights)

    def segment(
        self,
        image: ImageSource | StoredImage | ArrayLike | Image.Image | str | Path | Sequence,
        *,
        diameter: float | None = None,
        diameter_um: float | None = None,
        tile: int | None = None,
        overlap: int = 128,
        channel: int | str | None = None,
        projection: str | None = None,
        stack: bool = False,
        frame: int | None = None,
        axes: str | None = None,
        scene: int | str | None = None,
        channel_axis: int | None = None,
        pixel_size: PixelSize | float | None = None,
        name: str | None = None,
        keep_detections: bool = False,
        progress: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """The cells of an image.

        Where memory does not suffice, of a GPU or of the machine, the image is done anew in smaller windows, at last on
        the CPU, and a warning says so. The next image is tried as usual: results do not depend on those before it.

        Args:
            image: a path (PNG, JPEG, BMP, TIFF, a Zarr folder), an array or tensor (grey or RGB, any numeric type; see
                :mod:`cellseg_d2.images.arrays`), a picture of Pillow, an
                opened image, which stays open, or a list of these, which gives a list.
            diameter: of the image's cells in pixels. By default the model looks at its ``scales`` to find the best one.
            diameter_um: the same in micrometres; then the pixel size must be known.
            tile: side in pixels of the windows in which a large image is looked at, 64 or more; by default the model's.
            overlap: pixels that neighbouring windows share, at most half of one; should exceed the size of most cells.
            channel, projection, stack, axes, scene: which planes of an image with several are wanted, see
                :class:`cellseg_d2.images.axes.PlaneChoice`. A stack gives a list, plane by plane.
            frame: the number of one plane of a stack, from 0; only that one is segmented.
            channel_axis: which axis of an array holds colours, or channels, where its shape would not tell.
            pixel_size: in micrometres, of square pixels a number; by default that of the file's metadata.
            name: of the image, by default the file's without its suffix.
            keep_detections: whether the result has the detections before any threshold; those of several windows are
                merged.
            progress: whether it is said how far the images of a list, or the windows of a large image, are.

        Raises:
            CellSegError: the image cannot be read or understood, does not fit into memory, or the model does not know
                about diameters.
        """
        check_windows(tile, overlap)
        pixel_size = as_pixel_size(pixel_size)
        options = {"tile": tile, "overlap": overlap, "keep_detections": keep_detections, "progress": progress}
        if isinstance(image, list | tuple) and not _is_numeric(image):
            options |= {"diameter": diameter, "diameter_um": diameter_um, "channel": channel, "projection": projection}
            options |= {"stack": stack, "frame": frame, "axes": axes, "scene": scene, "channel_axis": channel_axis}
            options["pixel_size"] = pixel_size
            images = track(image, "segmenting", each=True, shown=progress and len(image) > 1)
            return [self.segment(one, name=name or _name_of(one, i), **options) for i, one in enumerate(images)]
        choice = PlaneChoice(channel, projection, stack or frame is not None, axes, scene)
        if isinstance(image, ImageSource):
            options["diameter"] = _in_pixels(diameter, diameter_um, pixel_size, image.origin)
            return self._segment_one(image, pixel_size, name or "image", **options)
        is_open = isinstance(image, StoredImage)
        with nullcontext(image) if is_open else open_stored(image, channel_axis=channel_axis, choice=choice) as stored:
            path = stored.origin if isinstance(stored.origin, Path) else None
            if path is not None:
                pixel_size = pixel_size or read_pixel_size(stored, scene)
            options["diameter"] = _in_pixels(diameter, diameter_um, pixel_size, path)
            name = name or (path.stem if path is not None else "plane" if stack else "image")
            planes = list(enumerate(choose_planes(stored.layout, choice, stored.origin)))
            if frame is not None:
                if not 0 <= frame < len(planes):
                    raise CellSegError(f"{stored.origin} has {len(planes)} planes, of which none is number {frame}")
                planes = planes[frame : frame + 1]
            found = [
                replace(
                    self._segment_one(PlaneSource(stored, plane), pixel_size, name + plane.suffix, **options),
                    file_name=None if path is None else path.name,
                    frame=number if choice.stack else None,
                )
                for number, plane in planes
            ]
        return found if stack else found[0]

    def _segment_one(
        self, image: ImageSource | np.ndarray, pixel_size: PixelSize | None, name: str, **options
    ) -> Segmentation:
        self.params.check_classes(self.class_names)
        source = open_source(image)
        cells, detections = first_that_fits(self._ways(source, **options), name)
        kept = source.height * source.width <= _KEPT_PIXELS
        grey = source.read(0, 0, source.height, source.width) if kept else None
        return Segmentation(cells, self.class_names, grey, pixel_size, name, detections)

    def _ways(self, source: ImageSource, *, diameter: float | None, tile: int | None, **options) -> list[Way]:
        """To find the cells of an image: as it is meant, then those that take less memory."""
        largest = max(source.height, source.width)
        sides = [tile or self.tile or largest]
        if diameter is None and len(self.scales) == 1:
            # Pixels are the network's, and half a window that holds the image may still do so.
            sides = [min(sides[0], largest)]
        # A model that resizes whatever it looks at to one size takes as much for smaller windows.
        while (tile or self.tile) and sides[-1] // 2 >= _SMALLEST_WINDOW:
            sides.append(sides[-1] // 2)

        def found(side: int) -> tuple[Cells, Detections | None]:
            return self._found(source, side, diameter=diameter, tile=tile, **options)

        def found_on_cpu() -> tuple[Cells, Detections | None]:
            with on_cpu(self.networks()):
                return found(sides[0])

        ways = [Way(f"windows of {side} pixels", partial(found, side)) for side in sides]
        if any(parameter.is_cuda for network in self.networks() for parameter in network.parameters()):
            ways.append(Way("the memory of the CPU", found_on_cpu))
        return ways

    def _found(
        self,
        source: ImageSource,
        limit: int,
        *,
        diameter: float | None,
        tile: int | None,
        overlap: int,
        keep_detections: bool,
        progress: bool,
    ) -> tuple[Cells, Detections | None]:
        """The cells of an image in windows of at most ``limit`` pixels; those of the model count the network's.

        Beside them what they were made of, where that is to be kept.
        """
        largest = max(source.height, source.width)
        own_tile = self.tile and min(self.tile, limit)
        seen: dict[tuple[float, bytes], Detections] = {}
        scales = self._scales(source, diameter, own_tile or largest, seen)

        def detect(window: np.ndarray) -> Detections:
            keys = [_key(window, scale) for scale in scales]
            return self._fused([seen[key] if key in seen else self._look(window, key[0]) for key in keys])

        # The network gets windows of one size, whatever the size of the cells.
        side = (tile and min(tile, limit)) or (own_tile and round(own_tile / max(scales))) or largest
        kept: list[Detections] = []
        cells = segment_tiled(
            detect,
            source,
            self.params,
            tile=side,
            overlap=min(overlap if tile else round(overlap / scales[0]), side // 2),
            intensity=self.intensity,
            intensity_percentiles=self.intensity_percentiles,
            progress=progress and largest > side,
            keep=kept.append if keep_detections else None,
        )
        return cells, kept[0] if kept else None

    def _scales(
        self, source: ImageSource, diameter: float | None, side: int, seen: dict[tuple[float, bytes], Detections]
    ) -> list[float]:
        """How much larger than usual the network is to see the image, which it looks at in windows of ``side``.

        The scale that suits the cells best comes first. What is detected on the way to it is put into ``seen`` if it
        need not be done again.
        """
        if diameter is not None:
            if not self.cell_diameter:
                raise CellSegError(
                    "the model does not tell the diameter of the cells that it knows, to which those of the image "
                    "could be resized: leave the diameter away, or set INPUT.CELL_DIAMETER (pixels) and "
                    "INPUT.ZOOM_TEST in its config.yaml"
                )
            return [scale_for(float(diameter), self.cell_diameter)]
        if len(self.scales) == 1:
            return list(self.scales)

        def glance(image: np.ndarray, scale: float) -> Detections:
            if self.before_look is not None:
                self.before_look()
            found = self.glance(image, scale)
            if self.glance_is_look and image.shape == (source.height, source.width):
                seen[_key(image, scale)] = found
            return found

        limits = sample_percentiles(source, self.intensity_percentiles)
        windows = (
            to_uint8(source.read(*window), self.intensity, self.intensity_percentiles, limits)
            # Small enough for the network at the largest scale, too.
            for window in _sample_windows(source, max(1, round(side / max(1.0, *self.scales))))
        )
        scale = choose_scale(glance, windows, self.scales, self.params)
        logger.info("looking at %d × %d pixels at scale %g", source.width, source.height, scale)
        return with_neighbors(scale, self.scales, self.scale_neighbors)


def _key(image: np.ndarray, scale: float) -> tuple[float, bytes]:
    return scale, hashlib.sha256(image.tobytes()).digest()


def _sample_windows(source: ImageSource, side: int) -> list[tuple[int, int, int, int]]:
    """Where to look for the first cells of an image: in its middle, then in the middles of its quarters.

    Returns:
        Top, left, height and width, one window only where it holds the whole image.
    """
    height, width = min(side, source.height), min(side, source.width)
    shares = [(2, 2), (1, 1), (3, 3), (1, 3), (3, 1)]  # of quarters of the room that there is
    rooms = [((source.height - height) * y // 4, (source.width - width) * x // 4) for y, x in shares]
    return [(top, left, height, width) for top, left in dict.fromkeys(rooms)]


def _in_pixels(
    diameter: float | None, diameter_um: float | None, pixel_size: PixelSize | None, origin: object
) -> float | None:
    """A diameter in pixels, whichever way it is given."""
    if diameter_um is None:
        return diameter
    if diameter is not None:
        raise CellSegError("a diameter is given in pixels or in micrometres, not both")
    if not 0 < diameter_um < np.inf:
        raise CellSegError(f"a diameter is a number of micrometres above 0, not {diameter_um}")
    if pixel_size is None:
        given = "give --pixel-size, or --diameter" if isinstance(origin, Path) else "give pixel_size, or diameter"
        raise CellSegError(f"{origin or 'an array'} does not tell the size of its pixels: {given} in pixels")
    return diameter_um / pixel_size.area_um2**0.5


def _is_numeric(values: Sequence) -> bool:
    """Whether nested lists are the rows of one image, rather than a list of images."""
    while isinstance(values, list | tuple):
        if not values:
            return False
        values = values[0]
    return np.isscalar(values) and not isinstance(values, str)


def _name_of(image: object, number: int) -> str:
    return Path(image).stem if isinstance(image, str | Path) else f"image_{number:03d}"
