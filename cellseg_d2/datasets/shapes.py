"""Drawn annotations: polygons, rectangles, ellipses and painted masks with names, image by image.

The readers of annotation tools share this module: each returns :class:`DrawnImage` records, of which
:class:`DrawnSource` makes a data set. Positions are ``(x, y)`` in pixels; the centre of the first pixel is
``(0.5, 0.5)``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from cellseg_d2.datasets.coco_file import is_finite
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder, images_not_found, places_beside
from cellseg_d2.datasets.names import distinct_names, files_within, key_of
from cellseg_d2.datasets.readers import ReaderOptions, Source
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord, main_type
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import IMAGE_SUFFIXES
from cellseg_d2.masks.coco import MAX_OUTLINE, POLYGON_TOLERANCE
from cellseg_d2.masks.crop import MaskCrop, united
from cellseg_d2.masks.overlaps import clip_crop
from cellseg_d2.masks.polygons import fill
from cellseg_d2.masks.rle import MAX_PIXELS

# Corners of the polygon by which an ellipse is drawn; its area is then within 0.1 %.
_ELLIPSE_CORNERS = 128


@dataclass
class Shape:
    """One annotation.

    Attributes:
        kind: the name of its class; None where it has none.
        row: the number by which the source names it.
        parts: for each of its parts, positions ``(K, 2)`` of the corners of its outlines; what is in an odd number of
            these is inside, so that an outline within another one is a hole.
        masks: painted parts beside them.
        problem: why it is not a cell; such a shape needs nothing else.
        group: shapes of one image with the same are parts of one cell; None for one alone.
        score: see :class:`cellseg_d2.datasets.records.CellAnnotation`.
    """

    kind: str | None
    row: int
    parts: list[list[np.ndarray]] = field(default_factory=list)
    masks: list[MaskCrop] = field(default_factory=list)
    problem: str | None = None
    group: object = None
    score: float | None = None


@dataclass
class DrawnImage:
    """One image and what was drawn in it.

    Attributes:
        file_name: name given by the tool, possibly a path of another machine.
        shapes: the annotations.
        size: ``(height, width)`` in pixels, if the tool gives it.
    """

    file_name: str
    shapes: list[Shape]
    size: tuple[int, int] | None = None

    @property
    def stem(self) -> str:
        """The name of the image without folder and suffix, whatever system it is from."""
        return PurePosixPath(PureWindowsPath(self.file_name).as_posix()).stem


class DrawnSource:
    """A data set of drawn annotations.

    Attributes:
        path: path of the annotations.
        images: the folder of the images.
        categories: names of the classes, in alphabetical order, with ``category`` for shapes without a name.
        ids: names of the images, see :func:`cellseg_d2.datasets.names.distinct_names`.
        has_groups: False.
        drop: ids of images to leave out.

    Args:
        path: path of the annotations.
        drawn: the annotated images; those without shapes are images without cells.
        images: the folder of the images; None reads without them, with the sizes that the tool gives.
        category: the class of shapes without a name.
        drop: ids of images to leave out.

    Raises:
        CellSegError: there is no image, or two of them have one name.
    """

    has_groups = False

    def __init__(
        self,
        path: str | Path,
        drawn: Sequence[DrawnImage],
        images: ImageFolder | None,
        category: str = "cell",
        drop: tuple[str, ...] = (),
    ):
        self.path = Path(path)
        self.images = images
        self.drop = set(drop)
        self._category = category
        if not drawn:
            raise CellSegError(f"{path} names no image")
        keys = [key_of(image.file_name) for image in drawn]
        named = zip(keys, distinct_names(keys), strict=True)
        # Where the folder has an image at the same place, it is that one, and not another one of the same name.
        names = [(images.name_of(key) if images is not None else None) or own for key, own in named]
        self._drawn = dict(zip(names, drawn, strict=True))
        if len(self._drawn) < len(drawn):
            twice = Counter(names).most_common(1)[0][0]
            raise CellSegError(f"{path} has several images called {twice!r}, so they cannot be told apart; rename one")
        kinds = {shape.kind or category for image in drawn for shape in image.shapes if shape.problem is None}
        self.categories = tuple(sorted(kinds)) or (category,)
        self.ids = list(self._drawn)

    def __len__(self) -> int:
        return len(self.ids)

    def give_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Set the sizes ``(height, width)`` of images by name, for formats that do not contain them."""
        for name, image in self._drawn.items():
            if image.size is None:
                image.size = sizes.get(name)

    def records(self, log: FindingLog) -> Iterator[ImageRecord]:
        """Read image by image; see :meth:`cellseg_d2.datasets.sartorius.SartoriusCsv.records`."""
        if self.images is not None:
            self.images.expect(self.ids)
        for name, image in self._drawn.items():
            if name in self.drop:
                log.note("left out", name, None, "asked to be dropped", action="image dropped")
                continue
            record = self._read(name, image, log)
            if record is not None:
                yield record

    def _read(self, name: str, image: DrawnImage, log: FindingLog) -> ImageRecord | None:
        size, file_name = image.size, image.file_name
        if self.images is not None:
            found = self.images.look_up(name, {size} if size else set(), log)
            if found is None:
                return None
            file_name, size = found[0], found[1] or size
        if size is None or size[0] * size[1] > MAX_PIXELS:
            reason = (
                "neither the annotations nor an image file give a width and a height that an image can have: --images "
                "names the images"
            )
            log.note("malformed size", name, None, reason, repair="image dropped")
            return None
        cells = []
        for shape in _joined(image.shapes):
            crop = self._mask(name, shape, *size, log)
            if crop is not None:
                cells.append(CellAnnotation(crop, shape.kind or self._category, shape.row, shape.score))
        kind = main_type(cell.cell_type for cell in cells)
        return ImageRecord(name, file_name, *size, kind, None, cells)

    def _mask(self, name: str, shape: Shape, height: int, width: int, log: FindingLog) -> MaskCrop | None:
        rings = [ring for part in shape.parts for ring in part]
        problem = shape.problem or next((p for p in map(_ring_problem, rings) if p), None)
        if problem is not None:
            log.note("malformed mask", name, shape.row, problem, repair="annotation dropped")
            return None
        outside = max((float(max((-r).max(), (r - (width, height)).max())) for r in rings), default=0.0)
        crops = [clip_crop(mask, height, width).tight() for mask in shape.masks]
        crops += [fill(part, height, width) for part in shape.parts]
        crop = united(crops)
        if crop is None:
            log.note("empty mask", name, shape.row, "no pixel of the image is inside it", repair="annotation dropped")
            return None
        if outside > POLYGON_TOLERANCE:
            reason = f"it leaves the {width} × {height} pixels by {outside:.1f} px"
            log.note("outside the image", name, shape.row, reason, repair="cut off at the image")
            if not log.clean:
                return None
        return crop


def _joined(shapes: Sequence[Shape]) -> list[Shape]:
    """Shapes with those of one group as one, which has all their parts."""
    joined: list[Shape] = []
    first: dict[tuple, Shape] = {}
    for shape in shapes:
        known = first.get((shape.group, shape.kind)) if shape.group is not None else None
        if known is None or shape.problem is not None:
            shape = replace(shape, parts=list(shape.parts), masks=list(shape.masks))
            joined.append(shape)
            if shape.group is not None and shape.problem is None:
                first[shape.group, shape.kind] = shape
        else:
            known.parts += shape.parts
            known.masks += shape.masks
    return joined


def _ring_problem(ring: np.ndarray) -> str | None:
    if len(ring) < 3:
        return f"an outline has {len(ring)} corners, but at least three enclose an area"
    if not np.isfinite(ring).all() or np.abs(ring).max() > MAX_OUTLINE:
        return "an outline has a corner that is not a position in an image"
    return None


def ring_of(points: Any) -> np.ndarray:
    """Corners ``(K, 2)`` float64 of a list of pairs; of something else, corners that are refused as no positions."""
    try:
        ring = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return np.full((3, 2), np.nan)
    return ring if ring.ndim == 2 and ring.shape[1] == 2 else np.full((3, 2), np.nan)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """The corners of a rectangle from two opposite ones."""
    return ring_of([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def ellipse(x: float, y: float, radius_x: float, radius_y: float, turned: float = 0.0) -> np.ndarray:
    """Corners along an ellipse.

    Args:
        x, y: its centre.
        radius_x, radius_y: half its axes.
        turned: from the x axis towards the y axis, in radians.
    """
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    along, across = radius_x * np.cos(angle), radius_y * np.sin(angle)
    cosine, sine = np.cos(turned), np.sin(turned)
    return np.stack([x + along * cosine - across * sine, y + along * sine + across * cosine], axis=1)


def name_of(value: object) -> str | None:
    """The name of a class on one line; None if the value is not a name."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text and text.isprintable() else None


def score_of(value: Any) -> float | None:
    """The score of a predicted cell; None if the value is no number from 0 to 1."""
    return float(value) if is_finite(value) and 0 <= value <= 1 else None


def image_name(name: str, suffix: str) -> str:
    """The file name of an image that annotations are called by, with its suffix, as ``a.tif.geojson``, or without.

    Args:
        name: of the annotations, without what they add.
        suffix: for a name without an image's.
    """
    return name if name.lower().endswith(IMAGE_SUFFIXES) else name + suffix


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """Height and width as whole numbers above 0; None if they are not."""
    try:
        sides = tuple(int(float(side)) for side in (height, width))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return (sides[0], sides[1]) if min(sides) > 0 else None


def open_drawn(path: Path, drawn: Sequence[DrawnImage], options: ReaderOptions) -> dict[str, Source]:
    """Make a data set of drawn images, with the image files in the named folder or beside the annotations.

    Args:
        path: path of the annotations, a file or a folder.
        drawn: the annotated images.
        options: options of the reader. Without ``images`` these are looked for in :func:`places_beside`.

    Raises:
        CellSegError: there is no image, or no folder that has one of them.
    """
    if options.images is not None:
        return {"": DrawnSource(path, drawn, options.image_folder(), options.category, options.drop)}
    here = path if path.is_dir() else path.parent
    stems = {image.stem for image in drawn}

    def is_drawn(file: Path) -> bool:
        return file.stem in stems or file.stem.removesuffix(".ome") in stems

    for place in filter(Path.is_dir, places_beside(here)):
        files = files_within(place, options.recursive)
        if any(p.suffix.lower() in IMAGE_SUFFIXES and is_drawn(p) for p in files):
            folder = ImageFolder(place, options.allow_missing, options.recursive, is_drawn)
            return {"": DrawnSource(path, drawn, folder, options.category, options.drop)}
    if not options.allow_missing:
        raise images_not_found(path)
    return {"": DrawnSource(path, drawn, None, options.category, options.drop)}


def open_drawn_files(
    path: Path, endings: Sequence[str], read: Callable[[Path], DrawnImage], options: ReaderOptions
) -> dict[str, Source]:
    """Make a data set of annotations with a file an image, see :func:`open_drawn`.

    Args:
        path: one file, or the folder of those with one of the ``endings``.
        endings: of the files' names, in small letters.
        read: reads one file; its image is in the folder of the same name, where sub-folders are entered.
        options: options of the reader.

    Raises:
        CellSegError: there is no such file, or one cannot be read.
    """
    if not path.exists():
        raise CellSegError(f"{path} does not exist")

    def is_one(file: Path) -> bool:
        return file.name.lower().endswith(tuple(endings))

    files = list(filter(is_one, files_within(path, options.recursive))) if path.is_dir() else [path]
    if not files:
        hint = ", but its sub-folders do: --recursive" if any(map(is_one, files_within(path, True))) else ""
        raise CellSegError(f"{path} holds no file {' or '.join('*' + ending for ending in endings)}{hint}")
    drawn = []
    for file in files:
        image = read(file)
        folder = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
        if folder != ".":
            image.file_name = f"{folder}/{image.file_name}"
        drawn.append(image)
    return open_drawn(path, drawn, options)
