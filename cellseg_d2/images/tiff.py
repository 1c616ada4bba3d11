"""The one reader of TIFF: which of the images in a file is meant, its axes, and its values, all or those of a part.

Whole images, parts of them, label images, sizes and pixel sizes all come through :class:`TiffImage`, so that they are
always those of the same pixels. Axes are those of OME-XML, of ImageJ, or of tifffile's own description.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from cellseg_d2.images.axes import AxesError, Layout, PlaneChoice, choose_one, listed, renamed, shape_text
from cellseg_d2.images.errors import ImageError, check_claim, check_file, clear_errors, closed_on_error
from cellseg_d2.images.grey import grey_dtype, grey_from_channels, plain_dtype
from cellseg_d2.images.pillow import (
    coloured_labels,
    colours_of_pillow,
    grey_of_pillow,
    labels_of_pillow,
    with_pillow,
)
from cellseg_d2.images.stored import StoredImage
from cellseg_d2.images.tiff_segments import SegmentReader

TIFF_SUFFIXES = (".tif", ".tiff")
# What tifffile decodes without a further package.
_BUILTIN = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
# Samples of a pixel that are no colours: of fluorescence microscopes, mostly.
_GREY = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
# Pages that are kept open, each with some decoded parts: as many as a pixel has colours.
_OPEN_PAGES = 4
# Whole pages that are kept, in bytes.
_KEPT_BYTES = 2**28
logger = logging.getLogger(__name__)


class TiffImage(StoredImage):
    """The image of a TIFF, with all its planes, of which rectangles can be read.

    Of images of several sizes it is the largest one, and a warning says so where the file begins with another, such as
    a thumbnail. Smaller copies that are marked as such, as in pyramids, are passed over.

    Args:
        path: of the file, which stays open until :meth:`close`, or to the end of a ``with`` block.
        choice: may name the axes, and the scene of a file with several images of one size; None where users have no
            choice.

    Attributes:
        path: of the file.
        page: the first page with the image.
        layout: of its axes; samples of a pixel that are no colours are channels.
        dtype: of the grey values of all parts: uint8, uint16 or float32.
        in_parts: whether a rectangle is read without reading the whole plane.

    Raises:
        ImageError: the file cannot be read, holds no image, or claims to hold more than its bytes can.
        AxesError: it holds several images of which one must be chosen, or what is chosen does not fit it.
    """

    def __init__(self, path: str | Path, choice: PlaneChoice | None = None):
        self.origin = self.path = Path(path)
        check_file(self.path)
        with clear_errors(self.path):
            self._file = _open_file(self.path)
            with closed_on_error(self._file):
                self._open(choice)

    def _open(self, choice: PlaneChoice | None) -> None:
        series = self._series = _chosen_series(self.path, self._file, choice)
        page = self.page = series.keyframe
        separate, depth, height, width, together = page.shaped
        self._samples = separate * together
        # The last axes are those of a page, in which samples may come before rows or behind columns.
        self._outer = len(series.axes) - 2 - (self._samples > 1)
        self._sample_axis = None if self._samples == 1 else self._outer + (0 if separate > 1 else 2)
        if depth != 1 or self._outer < 0 or min(separate, together) > 1:
            raise self._spread()
        names = _with_known_samples(series, self._sample_axis)
        self.layout = Layout(names, series.shape, self._channel_names(names))
        if choice is not None and choice.axes is not None:
            self.layout = renamed(self.layout, choice.axes, self.path)
        within = [name for number, name in enumerate(self.layout.names) if self._is_row_or_column(number)]
        if within != ["Y", "X"] and names != self.layout.names:
            raise AxesError(f"{self.path} has its rows and columns elsewhere than the axes {self.layout.names} say")
        if within != ["Y", "X"] or (self.layout.height, self.layout.width) != (height, width):
            raise self._spread()
        self._palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE and self._samples == 1
        self._open_pages: OrderedDict[int, SegmentReader] = OrderedDict()
        self._whole: dict[tuple[int, int | None], np.ndarray] = {}
        self.in_parts = not _needs_pillow(page) or importlib.util.find_spec("imagecodecs") is not None
        if self.in_parts and page.dtype is None:
            raise ImageError(f"{self.path} holds {page.bitspersample} bits a pixel, which cannot be read")
        self.dtype = self._grey_dtype()

    def _is_row_or_column(self, number: int) -> bool:
        return number >= self._outer and number != self._sample_axis

    def _grey_dtype(self) -> np.dtype:
        if not self.in_parts:
            return grey_dtype(self._by_pillow(0).dtype)
        return np.dtype(np.uint8) if self._palette else grey_dtype(np.dtype(self.page.dtype))

    def grey(self, place: Mapping[str, int], rows: slice | None = None, columns: slice | None = None) -> np.ndarray:
        """See :meth:`StoredImage.grey`; by default of the whole plane, of a dtype as of :func:`plain_dtype`.

        Raises:
            ImageError: the file is damaged there.
        """
        rows, columns = rows or slice(0, self.layout.height), columns or slice(0, self.layout.width)
        if "S" in self.layout.names[: self._outer] and "S" not in place:  # a page a colour
            pages = [self._values({**place, "S": number}, rows, columns) for number in range(self.layout.length("S"))]
            return grey_from_channels(np.stack(pages, axis=2))
        values = self._values(place, rows, columns)
        return grey_from_channels(values) if values.ndim == 3 else plain_dtype(values)

    def _values(self, place: Mapping[str, int], rows: slice, columns: slice) -> np.ndarray:
        """Values of a page ``(h, w)``, or with its colours ``(h, w, S)``, which may be any number already grey."""
        number = self._page_number(place)
        sample = None if self._sample_axis is None else place.get(self.layout.names[self._sample_axis])
        with clear_errors(self.path):
            if not self.in_parts:
                return self._by_pillow(number, sample)[rows, columns]
            values = self._stored(number, rows, columns)
            if self._samples > 1:
                return values if sample is None else values[:, :, sample]
            if self._palette and self.page.colormap is not None:
                return grey_from_channels(np.moveaxis(self.page.colormap[:, values], 0, -1) >> 8).astype(np.uint8)
            if self.page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind in "bu":
                values = ~values
            return values

    def labels(self, place: Mapping[str, int]) -> np.ndarray:
        """All values ``(H, W)`` of a plane as they are stored; of a palette its indices.

        Args:
            place: number along each axis but Y and X.

        Raises:
            ImageError: the image has colours, or the file is damaged.
        """
        if self._samples > 1 or "S" in self.layout.names:
            raise coloured_labels(self.path)
        number = self._page_number(place)
        with clear_errors(self.path):
            if not self.in_parts:
                return with_pillow(self.path, labels_of_pillow, self._page(number).index)
            return self._stored(number, slice(0, self.layout.height), slice(0, self.layout.width))

    @property
    def imagej(self) -> dict | None:
        """What ImageJ says of the file; None where it did not write it."""
        return (self._file.imagej_metadata or {}) if self._file.is_imagej else None

    @property
    def ome_pixels(self) -> ElementTree.Element | None:
        """What OME-XML says of the image."""
        xml = self._file.pages.first.description
        if "<OME" not in xml:
            return None
        try:
            described = [node for node in ElementTree.fromstring(xml).iter() if node.tag.endswith("}Pixels")]
        except ElementTree.ParseError:
            return None
        number = next(number for number, series in enumerate(self._file.series) if series is self._series)
        if self._series.kind == "ome" and number < len(described):
            return described[number]
        _, _, height, width, _ = self.page.shaped
        of_size = (node for node in described if (node.get("SizeX"), node.get("SizeY")) == (str(width), str(height)))
        return next(of_size, described[0] if described else None)

    def _channel_names(self, names: str) -> tuple[str, ...]:
        pixels = self.ome_pixels
        if pixels is not None:
            return tuple(node.get("Name", "") for node in pixels if node.tag.endswith("}Channel"))
        labels = (self.imagej or {}).get("Labels")
        # ImageJ names slices; where these are channels only, their names are those of channels.
        return tuple(map(str, labels)) if isinstance(labels, list) and names == "CYX" else ()

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        while self._open_pages:
            self._open_pages.popitem()[1].close()
        self._file.close()

    def _page_number(self, place: Mapping[str, int]) -> int:
        """Which page of the series has a plane."""
        names, shape = self.layout.names[: self._outer], self.layout.shape[: self._outer]
        return int(np.ravel_multi_index([place[name] for name in names], shape)) if names else 0

    def _page(self, number: int) -> tifffile.TiffPage:
        page = self._series[number]
        if page is None:
            raise ImageError(f"{self.path} lacks the page of plane {number}; it seems damaged")
        return page if isinstance(page, tifffile.TiffPage) else page.aspage()

    def _stored(self, number: int, rows: slice, columns: slice) -> np.ndarray:
        """Values ``(h, w)`` or ``(h, w, S)`` in the machine's own order of bytes, in an array of their own."""
        if number not in self._open_pages:
            # ImageJ's files of more than 4 GB have a single page, behind whose pixels are those of the others.
            alone = self._series.is_truncated
            reader = SegmentReader(self.page, number * self.page.nbytes) if alone else SegmentReader(self._page(number))
            self._open_pages[number] = reader
            if len(self._open_pages) > _OPEN_PAGES:
                self._open_pages.popitem(last=False)[1].close()
        block = self._open_pages[number].read(rows, columns)
        return np.array(block[:, :, 0] if self._samples == 1 else block, dtype=block.dtype.newbyteorder("="))

    def _by_pillow(self, number: int, sample: int | None = None) -> np.ndarray:
        """The grey values of a whole page, or one of its colours.

        libtiff, by which Pillow reads it, knows most compressions.
        """
        if (number, sample) not in self._whole:

            def use(image: Image.Image) -> np.ndarray:
                return grey_of_pillow(image) if sample is None else colours_of_pillow(image)[:, :, sample]

            with clear_errors(self.path):
                try:
                    values = with_pillow(self.path, use, self._page(number).index)
                except UnidentifiedImageError:
                    raise self.needs_package("cannot be read") from None
            if sum(whole.nbytes for whole in self._whole.values()) + values.nbytes > _KEPT_BYTES:
                self._whole.clear()
            self._whole[number, sample] = values
        return self._whole[number, sample]

    def _spread(self) -> ImageError:
        return ImageError(f"{self.path} spreads an image over several pages in a way that cannot be read")

    def needs_package(self, what: str) -> ImageError:
        """The error of a compression that a further package reads, in parts or at all."""
        kind = getattr(self.page.compression, "name", self.page.compression)  # a number, if nobody knows it
        return ImageError(
            f"{self.path} is compressed ({kind}) in a way that {what}: "
            "type `pip install imagecodecs`, or save it with deflate or without compression"
        )


def _open_file(path: Path) -> tifffile.TiffFile:
    """The file alone: by some descriptions it speaks of others, but what is read is what is in the file that was named.

    OME-XML is believed if all that it describes is in the file.
    """
    open_alone = partial(tifffile.TiffFile, path, is_mmstack=False, is_ndtiff=False, _multifile=False)
    tiff = open_alone()
    try:
        if not tiff.is_ome or all(page is not None for series in tiff.series for page in series.pages):
            return tiff
    except MemoryError:
        raise
    except Exception:  # damaged descriptions raise almost anything
        logger.debug("%s: OME-XML cannot be understood", path, exc_info=True)
    tiff.close()
    return open_alone(is_ome=False)


def _chosen_series(path: Path, tiff: tifffile.TiffFile, choice: PlaneChoice | None) -> tifffile.TiffPageSeries:
    """The series of pages with the image."""
    found = [series for series in tiff.series if len(series.pages)]
    if not found:
        raise ImageError(f"{path} holds no image")
    size = path.stat().st_size
    whole = [series for series in found if not (series.keyframe.is_reduced or series.keyframe.is_mask)] or found
    names = [series.name for series in whole]
    if choice is not None and choice.scene is not None:
        chosen = whole[choose_one(choice.scene, names, f"{path} has", "scene")]
        check_claim(path, chosen.shape, math.prod(chosen.shape), size)
        return chosen
    chosen = max(whole, key=lambda series: math.prod(series.shape))  # the first one of several
    check_claim(path, chosen.shape, math.prod(chosen.shape), size)
    if (count := sum(series.shape == chosen.shape for series in whole)) > 1:
        what = f"{path} holds {count} images of {shape_text(chosen.shape)} pixels"
        if choice is None:
            raise AxesError(f"{what}; save the one that is meant as a file of its own")
        raise AxesError(f"{what} ({listed(names)}): choose one with --scene N")
    if chosen is not whole[0]:
        _tell(path, shape_text(whole[0].shape), shape_text(chosen.shape))
    return chosen


def _with_known_samples(series: tifffile.TiffPageSeries, sample_axis: int | None) -> str:
    """Names of the axes, of which S holds colours; other samples of a pixel are channels."""
    names = list(series.axes)
    if sample_axis is not None and names[sample_axis] == "S" and not _are_colours(series.keyframe):
        names[sample_axis] = "C" if "C" not in names else "s"
    return "".join(names)


def _are_colours(page: tifffile.TiffPage) -> bool:
    samples = page.shaped[0] * page.shaped[4]
    if page.photometric in _GREY:
        return samples == 2 and bool(page.extrasamples) and page.extrasamples[0] in _ALPHA
    return samples <= 4


@cache
def _tell(path: Path, first: str, chosen: str) -> None:
    """Once, however often the file is read."""
    logger.warning("%s begins with an image of %s pixels; read is its largest one, of %s", path, first, chosen)


def _needs_pillow(page: tifffile.TiffPage) -> bool:
    """Compressions that tifffile only reads with a further package (LZW, JPEG, PackBits …); libtiff knows them."""
    return page.compression not in _BUILTIN or page.predictor != 1
