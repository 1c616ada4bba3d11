"""How large a pixel is, from metadata: OME-XML, ImageJ's description or resolution tags of a TIFF, OME-Zarr's scale."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.axes import PlaneChoice
from cellseg_d2.images.errors import ImageError, clear_errors
from cellseg_d2.images.microscope import MICROSCOPE_SUFFIXES, open_microscope
from cellseg_d2.images.read import is_zarr
from cellseg_d2.images.stored import StoredImage
from cellseg_d2.images.tiff import TIFF_SUFFIXES, TiffImage
from cellseg_d2.images.zarr_metadata import find_array

# Micrometres in a unit, by the names that programs give it. ImageJ escapes µ, and there are two characters for it.
_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "\\u00b5m", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("å", "a\u030a", "\\u00c5", "angstrom", "ångström", "ångstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in", "inches"), 25.4e3),
}
_NO_LENGTH = ("pixel", "reference frame")
# Resolutions for screens and printers end at 1200 dpi, which is 21 µm.
_COARSEST_FROM_TAGS = 20.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelSize:
    """The size of a pixel in the specimen.

    Attributes:
        x_um, y_um: width and height in micrometres.

    Raises:
        CellSegError: one is not a positive number.
    """

    x_um: float
    y_um: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(side) and side > 0 for side in (self.x_um, self.y_um)):
            raise CellSegError(f"a pixel of {self.x_um} × {self.y_um} µm is none: give positive numbers of micrometres")

    @property
    def is_square(self) -> bool:
        """Whether the sides are equal to one part in a thousand, as far as resolution tags are to be believed."""
        return math.isclose(self.x_um, self.y_um, rel_tol=1e-3)

    @property
    def area_um2(self) -> float:
        """Square micrometres."""
        return self.x_um * self.y_um


def read_pixel_size(path: str | Path | StoredImage, scene: int | str | None = None) -> PixelSize | None:
    """The pixel size that a file tells, or None where it tells none.

    A microscope's own file tells it, and an OME-Zarr image by its scale and units. A TIFF is asked in this order:
    OME-XML (``PhysicalSizeX`` with its unit, µm by default), ImageJ's unit with the resolution tags, the resolution
    tags with ``ResolutionUnit``. Programs for photographs fill in 72, 96 or 300 dpi without having measured anything: a
    resolution per inch or centimetre that makes pixels larger than 20 µm is taken for that and ignored, unless it is
    from OME-XML. So are units that are no length, such as "pixel", and sizes of 0. A warning says so where metadata
    tell something that is not enough, such as the width alone.

    Args:
        path: of an image, or the image itself, opened. PNG, JPEG and BMP tell nothing.
        scene: of a file with several images, see :class:`cellseg_d2.images.axes.PlaneChoice`.

    Raises:
        ImageError: the file is missing or cannot be read.
    """
    if isinstance(path, StoredImage):
        return _of_stored(path, scene)
    path = Path(path)
    if not path.exists():
        raise ImageError(f"{path} does not exist")
    if path.is_dir():
        return _from_zarr(path, scene) if is_zarr(path) else None
    if path.suffix.lower() in MICROSCOPE_SUFFIXES:
        with open_microscope(path, PlaneChoice(scene=scene)) as image:
            return _of_stored(image, scene)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return None
    with TiffImage(path, PlaneChoice(scene=scene)) as image:
        return _from_tiff(image)


def _of_stored(image: StoredImage, scene: int | str | None) -> PixelSize | None:
    if isinstance(image, TiffImage):
        return _from_tiff(image)
    if isinstance(image.origin, Path) and is_zarr(image.origin):
        return _from_zarr(image.origin, scene)
    sides = image.pixel_um()
    return None if sides is None else _plausible(*sides)


def _from_tiff(image: TiffImage) -> PixelSize | None:
    with clear_errors(image.path):
        pixels = image.ome_pixels
        size = (None if pixels is None else _from_ome(pixels)) or _from_tags(image)
    if size is None and pixels is not None:
        told = {name: value for name, value in pixels.items() if name.startswith(("PhysicalSizeX", "PhysicalSizeY"))}
        if any(unit not in _NO_LENGTH for name, unit in told.items() if name.endswith("Unit")) or len(told) == 1:
            said = ", ".join(f"{name} {value}" for name, value in told.items())
            _tell(image.path, said)
    return size


@cache
def _tell(path: Path, said: str) -> None:
    """Once, however often the file is read."""
    logger.warning("%s tells too little of the size of its pixels (%s): give --pixel-size", path, said)


def _from_zarr(path: Path, scene: int | str | None) -> PixelSize | None:
    sides = find_array(path, scene).pixel_size
    if sides is None:
        return None
    scales = [_micrometres(unit) for _, unit in sides]
    if None in scales:
        if any(unit is not None for _, unit in sides):
            _tell(path, ", ".join(f"{side:g} {unit or 'of no unit'}" for side, unit in sides))
        return None
    return _plausible(*(side * (scale or math.nan) for (side, _), scale in zip(sides, scales, strict=True)))


def _from_ome(pixels: ElementTree.Element) -> PixelSize | None:
    sides = []
    for axis in "XY":
        scale = _micrometres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            sides.append(float(pixels.get(f"PhysicalSize{axis}", "nan")) * (scale or math.nan))
        except ValueError:
            return None
    return _plausible(*sides)


def _from_tags(image: TiffImage) -> PixelSize | None:
    tags = image.page.tags
    unit = {2: "inch", 3: "cm"}.get(tags.valueof("ResolutionUnit", default=2))
    units = {"X": unit, "Y": unit}
    if image.imagej is not None:
        unit = image.imagej.get("unit") or unit
        units = {"X": unit, "Y": image.imagej.get("yunit") or unit}
    sides = []
    for axis, own in units.items():
        scale = _micrometres(own)
        numerator, denominator = tags.valueof(f"{axis}Resolution", default=(0, 1))  # pixels per unit
        if not scale or not numerator or not denominator:
            return None
        sides.append(scale * denominator / numerator)
        if scale in (_MICROMETRES["inch"], _MICROMETRES["cm"]) and sides[-1] > _COARSEST_FROM_TAGS:
            return None
    return _plausible(*sides)


def _micrometres(unit: object) -> float | None:
    return _MICROMETRES.get(str(unit).strip().lower())


def _plausible(x_um: float, y_um: float) -> PixelSize | None:
    return PixelSize(x_um, y_um) if all(math.isfinite(side) and side > 0 for side in (x_um, y_um)) else None


def as_pixel_size(size: PixelSize | float | None) -> PixelSize | None:
    """A pixel size; a number is the side of square pixels in micrometres.

    Raises:
        CellSegError: it is not a positive number.
    """
    if size is None or isinstance(size, PixelSize):
        return size
    try:
        side = float(size)
    except (TypeError, ValueError):
        raise CellSegError(f"a pixel size is a number of micrometres or a PixelSize, not {size!r}") from None
    return PixelSize(side, side)
