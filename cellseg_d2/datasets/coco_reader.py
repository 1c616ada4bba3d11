"""Read COCO JSON as plain records: polygons, compressed or plain RLE; ``annotations`` as a list or a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cellseg_d2.datasets.coco_file import is_cell, is_plane, read_coco
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder, images_not_found
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord, main_type
from cellseg_d2.datasets.shapes import score_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.coco import to_rle
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop, united
from cellseg_d2.masks.rle import RLEError


def load_coco(path: str | Path) -> list[ImageRecord]:
    """Read a COCO JSON without its images, strictly.

    Regions marked ``iscrowd`` are not single cells; their union is a record's ``ignore``.

    Returns:
        One record per image in the file's order; ``number`` is the image's id, a cell's ``row`` its annotation's.

    Raises:
        CellSegError: the file is not a COCO JSON, or an annotation is malformed; the message names it.
    """
    log = FindingLog()
    records = list(CocoSource(path).records(log))
    log.raise_open_errors(path)
    return records


class CocoSource:
    """A COCO JSON to be read image by image.

    Attributes:
        path: path of the JSON.
        categories: their names, in the order of their ids.
        has_groups: whether it is known which images look alike.
        info: what the file has under ``info``.
        rows: number of annotations.

    Args:
        path: path of the JSON.
        images: the folder of the images, in which they are looked up by name; None reads without them.
        describe: gives ``(cell_type, group)`` of an image from its entry under ``images``; either may be None.
        categories: to use instead of the file's: a single one is given to all cells, of several each cell gets the
            type of its image. Types that are not among them are appended.
        drop: names of images to leave out.
    """

    def __init__(
        self,
        path: str | Path,
        images: ImageFolder | None = None,
        describe: Callable[[Mapping], tuple[str | None, str | None]] | None = None,
        categories: tuple[str, ...] | None = None,
        drop: tuple[str, ...] = (),
    ):
        self.path = Path(path)
        self.images = images
        self._describe = describe or (lambda entry: (entry.get("cell_type"), entry.get("group")))
        self._file = read_coco(self.path)
        self.info = self._file.info
        self._entries = self._file.images
        self._names = self._file.image_names()
        self._annotations = self._file.by_image()
        self.rows = len(self._file.annotations)
        self._own_names = self._file.categories if categories is None else None
        if categories is None:
            categories = tuple(dict.fromkeys(self._file.categories.values()))
        elif len(categories) > 1:
            types = {self._describe(entry)[0] or "cell" for entry in self._entries.values()}
            categories = (*categories, *sorted(types - set(categories)))
        self.categories = categories
        self.has_groups = any(self._describe(entry)[1] is not None for entry in self._entries.values())
        self.drop = set(drop)

    @property
    def ids(self) -> list[str]:
        """Names of the images, as in their records."""
        return list(self._names.values())

    def __len__(self) -> int:
        return len(self._entries)

    def records(self, log: FindingLog) -> Iterator[ImageRecord]:
        """Read image by image; see :meth:`cellseg_d2.datasets.sartorius.SartoriusCsv.records`."""
        for number in filter(lambda number: number not in self._entries, self._annotations):
            reason = f"its image_id {number} is not listed under images"
            for annotation in self._annotations[number]:
                log.note("unknown image", None, annotation.get("id"), reason, repair="annotation dropped")
        if self.images is not None:
            self.images.expect([self._image_id(number) for number in self._entries])
        for number, entry in self._entries.items():
            name = self._names[number]
            if name in self.drop:
                log.note("left out", name, None, "asked to be dropped", action="image dropped")
                continue
            record = self._read_image(number, name, entry, log)
            if record is not None:
                yield record

    def _read_image(self, number: int, name: str, entry: Mapping, log: FindingLog) -> ImageRecord | None:
        size, file_name = (entry["height"], entry["width"]), entry["file_name"]
        known = entry["height"] is not None
        if self.images is not None:
            found = self.images.look_up(self._image_id(number), {size} if known else set(), log)
            if found is None:
                return None
            file_name, size = found[0], found[1] or size
        elif not known:
            with suppress(CellSegError):  # said below
                size = self._file.size(number)
        if None in size:
            reason = "neither the JSON nor an image file gives width and height: --images names the images"
            log.note("malformed size", name, None, reason, repair="image dropped")
            return None
        height, width = size
        cell_type, group = self._describe(entry)
        cells, regions = [], []
        for annotation in self._annotations[number]:
            crop = self._read_mask(name, annotation, height, width, log)
            if not is_cell(annotation):
                regions += [crop] if crop is not None else []
                continue
            category = self._category(annotation, cell_type, name, log)
            if crop is not None and category is not None:
                cells.append(CellAnnotation(crop, category, annotation.get("id"), score_of(annotation.get("score"))))
        cell_type = cell_type or main_type(cell.cell_type for cell in cells)
        return ImageRecord(name, file_name, height, width, cell_type, group, cells, number, united(regions))

    def _image_id(self, number: int) -> str:
        """The name of an image in the folder of the images."""
        assert self.images is not None
        name = self._names[number]
        return name if name in self.images.files else self._file.stems[number]

    def _category(self, annotation: Mapping, image_type: str | None, name: str, log: FindingLog) -> str | None:
        if self._own_names is None:
            return self.categories[0] if len(self.categories) == 1 else image_type or "cell"
        category = self._own_names.get(annotation["category_id"]) if "category_id" in annotation else None
        if category is None:
            reason = f"category_id {annotation.get('category_id')} is not listed under categories"
            log.note("unknown cell type", name, annotation.get("id"), reason, repair="annotation dropped")
        return category

    def _read_mask(self, name: str, annotation: Mapping, height: int, width: int, log: FindingLog) -> MaskCrop | None:
        row = annotation.get("id")
        if not is_cell(annotation):
            log.note("crowd", name, row, "it is marked iscrowd", action="kept as a region to ignore")
        try:
            rle, outside = to_rle(annotation.get("segmentation"), height, width)
            crop = coco_to_crop(rle)
        except RLEError as error:
            log.note("malformed mask", name, row, str(error), repair="annotation dropped")
            return None
        if crop.area == 0:
            log.note("empty mask", name, row, "no pixel of the image is inside it", repair="annotation dropped")
            return None
        if outside:
            reason = f"the polygon leaves the {width} × {height} pixels by {outside:.1f} px"
            log.note("outside the image", name, row, reason, repair="cut off at the image")
        return crop


@DATASET_READERS.register("coco", metavar="FILE")
def open_coco(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """COCO JSON of any tool: polygons or run lengths, its categories are kept"""
    file = read_coco(path)
    root = options.images or file.image_root
    if root is None or not (options.images or root.is_dir()):
        if not options.allow_missing:
            raise images_not_found(path, root)
        return {"": CocoSource(path, None, drop=options.drop)}
    names = file.image_names()
    found = {names[number]: _within(place, root) for number, place in file.image_paths(root).items() if place.is_file()}
    if len(found) < len(names):  # maybe of another format, or in a sub-folder
        others = ImageFolder(root, options.allow_missing, recursive=True).files
        known = {names[number]: others[stem] for number, stem in file.stems.items() if stem in others}
        found = {**known, **found}
    if options.allow_missing:  # masks alone are what can be had of planes, which are no files
        planes = {names[number] for number, entry in file.images.items() if is_plane(entry)}
        found = {name: place for name, place in found.items() if name not in planes}
    images = ImageFolder.of_names(root, found, options.allow_missing)
    return {"": CocoSource(path, images, drop=options.drop)}


def _within(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()
