"""Read COCO JSON of any tool into one form, which all other modules rely on.

Tools write COCO's format in many dialects: ids are numbers or texts, sizes may be missing, file names may be paths of
another machine, ``annotations`` may be a dict by id, and masks have any of COCO's forms. Everything is converted to one
form, or refused in a sentence that names file and entry.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from numbers import Real
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cellseg_d2.datasets.image_folder import places_beside
from cellseg_d2.datasets.names import key_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import image_size
from cellseg_d2.io.cache import BoundedCache
from cellseg_d2.io.text import check_inside, read_json
from cellseg_d2.masks.coco import to_rle
from cellseg_d2.masks.rle import MAX_PIXELS, RLEError

_LISTS = ("images", "annotations", "categories")
# The last files are kept, so that a data set that several steps of a command read is parsed once.
_KEPT_BYTES, _YOUNG_SECONDS = 2**28, 2.0


class CocoFile:
    """A COCO JSON. It is shared by all readers of the same file: its content must not be changed.

    Attributes:
        source: path of the file, or what else the content is called in messages.
        folder: folder of the file, to which ``info.image_root`` is relative.
        info: what is under ``info``; empty where that is not an object.
        images: entries by id, in the file's order. ``file_name`` has ``/`` between folders; ``height`` and ``width``
            are in pixels, or None where the file does not contain them, see :meth:`size`.
        annotations: in the file's order, each with ``image_id`` and, where it has one, ``category_id`` as
            in the other two, or as a text where they name nothing that is listed. The rest is as it is written.
        categories: names by id, in the order of the ids, without those that only group others.
        lacks: which of images, annotations and categories are missing.

    Args:
        content: content of the JSON; see :func:`read_coco`. Ids are whole numbers, or texts of such; if any id of the
            images, or of the categories, is another text, all of them are numbered from 1 on. Sizes that are missing or
            not above 0 are unknown.
        source: what was read.
        folder: the folder in which it lies.
        annotated: refuse content that lacks any of the three.

    Raises:
        CellSegError: it is something else; the message says what, and which entry.
    """

    def __init__(
        self, content: object, source: object = "the COCO JSON", folder: str | Path = ".", annotated: bool = True
    ):
        if not isinstance(content, Mapping) or "images" not in content:
            raise _no_coco(source)
        self.lacks = tuple(key for key in _LISTS if key not in content)
        if self.lacks and annotated:
            raise _no_coco(source)
        self.source = source
        self.folder = Path(folder)
        self.info: Mapping = content["info"] if isinstance(content.get("info"), Mapping) else {}
        images, annotations, categories = (_entries(content.get(key, []), key, source) for key in _LISTS)
        self._numbers: dict[str, dict] = {
            key: _numbers(entries, key, source) for key, entries in (("image", images), ("category", categories))
        }
        for number, entry in enumerate(images):
            _check_image(entry, f"{source} is not a COCO JSON: image {number} (from 0)")
            entry["id"] = self._numbers["image"][id_key(entry["id"])]
        names = {}
        for number, entry in enumerate(categories):
            _check_text(entry, "name", f"{source} is not a COCO JSON: category {number} (from 0)")
            names[self._numbers["category"][id_key(entry["id"])]] = entry["name"]
        for number, entry in enumerate(annotations):
            self._check_annotation(entry, f"{source} is not a COCO JSON: annotation {number} (from 0)")
        self.images = {entry["id"]: entry for entry in images}
        self.annotations = annotations
        groups = self._groups(categories, {entry.get("category_id") for entry in annotations})
        self.categories = {number: names[number] for number in sorted(names.keys() - groups)}

    def _groups(self, categories: Iterable[Mapping], used: set) -> set[int]:
        """Ids of entries that are only the ``supercategory`` of others, as Roboflow's first one, and no class."""
        above = [entry.get("supercategory") for entry in categories if entry.get("supercategory") != entry["name"]]
        found = (entry for entry in categories if entry["name"] in above and entry.get("supercategory") == "none")
        return {self._numbers["category"][id_key(entry["id"])] for entry in found} - used

    def _check_annotation(self, entry: dict, where: str) -> None:
        for kind, key in (("image", "image_id"), ("category", "category_id")):
            if key in entry or kind == "image":
                own = id_key(entry.get(key))
                if own is None:
                    raise CellSegError(f"{where} has the {key} {entry.get(key)!r:.40}, which is not a number or name")
                # An id that is not listed becomes a text, which no entry has as its id.
                entry[key] = self._numbers[kind].get(own, str(own))
        if "id" in entry and isinstance(own := id_key(entry["id"]), int):
            entry["id"] = own
        elif not isinstance(entry.get("id", ""), str):
            raise CellSegError(f"{where} has the id {entry['id']!r:.40}, which is not a number or name")
        crowd = entry.get("iscrowd")
        if crowd is not None and crowd not in (0, 1):
            raise CellSegError(f"{where} has the iscrowd {crowd!r:.40}, which is neither 0 nor 1")
        if "iscrowd" in entry:
            entry["iscrowd"] = int(crowd or 0)  # null and false are no integers, as pycocotools wants them
        check_numbers(entry, where)

    @cached_property
    def stems(self) -> dict[int, str]:
        """The names of the images' files without folder and suffix, by id; several may be the same.

        A plane of a stack, which has a ``frame``, has the name that its results go by.
        """
        return {number: _stem(entry) for number, entry in self.images.items()}

    @property
    def names_as_written(self) -> dict[int | str, str]:
        """:attr:`names` by what the file itself calls the images, as :func:`id_key`."""
        names = self.names
        return {own: names[number] for own, number in self._numbers["image"].items()}

    @property
    def names(self) -> dict[int, str]:
        """A name for each image by id that no other has: its stem if these differ, else as :meth:`image_names`."""
        return self.stems if len(set(self.stems.values())) == len(self.stems) else self.image_names()

    def image_names(self) -> dict[int, str]:
        """A name for each image by id that no other has: what it was called before, or its file's stem, or its path.

        Raises:
            CellSegError: even the paths are not unique.
        """
        for name in (
            lambda entry: str(entry.get("source_id") or self.stems[entry["id"]]),
            lambda entry: key_of(entry["file_name"]),
        ):
            names = {number: name(entry) for number, entry in self.images.items()}
            if len(set(names.values())) == len(names):
                return names
        twice = Counter(names.values()).most_common(1)[0][0]
        raise CellSegError(f"several images have the file name {twice!r}")

    @property
    def image_root(self) -> Path | None:
        """The folder of the images: ``info.image_root``, relative to the file's own.

        Where the file names none, as those of other tools do, the first of :func:`places_beside` that has the first
        image; None where there is none.
        """
        if isinstance(root := self.info.get("image_root"), str):
            return self.folder / root
        if not self.images:
            return self.folder
        first = next(iter(self.images.values()))["file_name"]
        return next((place for place in places_beside(self.folder) if _find(place, first).is_file()), None)

    def image_paths(self, root: Path | None = None) -> dict[int, Path]:
        """The image files by id, whether they exist or not.

        Args:
            root: the folder of the images; None is :attr:`image_root`. Of a path of another machine the end counts, as
                much of it as there is in this folder.
        """
        root = root or self.image_root or self.folder
        return {number: _find(root, entry["file_name"]) for number, entry in self.images.items()}

    def size(self, number: int) -> tuple[int, int]:
        """``(height, width)`` of an image in pixels, from its file if the JSON does not contain them.

        Raises:
            CellSegError: neither does.
        """
        entry = self.images[number]
        if entry["height"] is None:
            path = _find(self.image_root or self.folder, entry["file_name"])
            if not path.is_file():
                raise CellSegError(
                    f"{self.source} does not give the size of image {entry['file_name']}, and there is no file {path}"
                )
            # Kept, so that all calls give the same result as long as this object lives.
            entry["height"], entry["width"] = image_size(path)
        return entry["height"], entry["width"]

    def by_image(self) -> dict[Any, list[dict]]:
        """The annotations by image id: of all images, then, under texts, those of images that are not listed."""
        found: dict[Any, list[dict]] = {number: [] for number in self.images}
        for annotation in self.annotations:
            found.setdefault(annotation["image_id"], []).append(annotation)
        return found

    def masks(self, compressed: bool = False) -> Iterator[tuple[dict, dict, float]]:
        """All annotations with their masks, which must be right.

        Args:
            compressed: yield compressed RLE of the right size unchecked, which saves some 40 µs each, for callers whose
                decoder checks it.

        Yields:
            An annotation, its compressed COCO RLE, and by how many pixels a polygon leaves the image.

        Raises:
            CellSegError: an annotation has no image or category, or a mask is malformed; the message names it.
        """
        for number, annotation in enumerate(self.annotations):
            where = f"{self.source}, annotation {annotation.get('id', number)}"
            for key, known in (("image_id", self.images), ("category_id", self.categories)):
                if annotation.get(key) not in known:
                    raise CellSegError(f"{where}: there is no {key.removesuffix('_id')} {annotation.get(key)}")
            image = annotation["image_id"]
            size, segmentation = self.size(image), annotation.get("segmentation")
            if compressed and isinstance(segmentation, dict) and _is_compressed(segmentation, size):
                yield annotation, segmentation, 0.0
                continue
            try:
                yield annotation, *to_rle(segmentation, *size)
            except RLEError as error:
                raise CellSegError(f"{where} of image {self.stems[image]}: the mask is malformed: {error}") from None

    def content(self) -> dict:
        """The whole as a COCO JSON has it, with the annotations and images of this object."""
        categories = [{"id": number, "name": name} for number, name in self.categories.items()]
        return {
            "info": self.info,
            "images": list(self.images.values()),
            "annotations": self.annotations,
            "categories": categories,
        }


_CACHE: BoundedCache[tuple[Any, int]] = BoundedCache(_KEPT_BYTES, lambda value: value[1])


def read_coco(path: str | Path, annotated: bool = True) -> CocoFile:
    """Read a COCO JSON, once as long as the file stays the same.

    Args:
        path: path of the JSON.
        annotated: refuse a file without ``annotations`` or ``categories``, which only lists images.

    Raises:
        CellSegError: it cannot be read, or is not a COCO JSON; the message says what is wrong.
    """
    file = read_coco_or_json(path, annotated)
    if not isinstance(file, CocoFile):
        raise _no_coco(path)
    return file


def read_coco_or_json(path: str | Path, annotated: bool = False) -> Any:
    """Read a JSON of any kind: a :class:`CocoFile` where it lists images, else what it holds.

    Args:
        path, annotated: see :func:`read_coco`.

    Raises:
        CellSegError: it cannot be read, or lists images and is not a COCO JSON.
    """
    path = Path(path)

    def read() -> tuple[Any, int]:
        content = read_json(path)
        if isinstance(content, Mapping) and "images" in content:
            return CocoFile(content, path, path.parent, annotated=False), path.stat().st_size
        return content, _KEPT_BYTES + 1

    try:
        state = path.stat()
        # Of a file as young as that, another version may have the same time.
        settled = time.time() - state.st_mtime > _YOUNG_SECONDS
    except (OSError, ValueError):
        settled = False  # reading says what is wrong with it
    found, _ = _CACHE.get((path, state.st_mtime_ns, state.st_size, state.st_ino), read) if settled else read()
    if annotated and isinstance(found, CocoFile) and found.lacks:
        raise _no_coco(path)
    return found


def _stem(image: Mapping) -> str:
    return PurePosixPath(image["source_id"]).name if is_plane(image) else PurePosixPath(image["file_name"]).stem


def is_plane(image: Mapping) -> bool:
    """Whether an entry for an image is for one plane of the stack in its file."""
    return "frame" in image and bool(image.get("source_id"))


def is_cell(annotation: Mapping) -> bool:
    """Whether an annotation is one cell: not a region marked ``iscrowd``, in which nobody annotated.

    Such regions count as no cell, training learns nothing from them (:mod:`cellseg_d2.masks.ignore`), and scores do not
    count what is predicted there.
    """
    return not annotation.get("iscrowd", 0)


def check_numbers(entry: Mapping, where: str) -> None:
    """Refuse a ``bbox``, an ``area`` or a ``score`` that is there and is not a finite number, or no four of them.

    Raises:
        CellSegError: says which, after ``where``.
    """
    for key in ("area", "score"):
        if key in entry and not is_finite(entry[key]):
            raise CellSegError(f"{where} has the {key} {entry[key]!r:.40}, which is not a finite number")
    if "bbox" in entry:
        box = entry["bbox"]
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_finite, box)):
            raise CellSegError(f"{where} has the bbox {box!r:.60}, which is not x, y, width and height")


def _no_coco(source: object) -> CellSegError:
    return CellSegError(f"{source} is not a COCO JSON: it needs images, annotations and categories")


def _entries(value: object, key: str, source: object) -> list[dict]:
    values = value.values() if isinstance(value, Mapping) else value
    if not isinstance(values, Iterable) or isinstance(values, str) or not all(isinstance(v, Mapping) for v in values):
        raise CellSegError(f"{source} is not a COCO JSON: its {key} are not a list of objects")
    return [dict(entry) for entry in values]


def _check_image(entry: dict, where: str) -> None:
    _check_text(entry, "file_name", where)
    check_inside(entry["file_name"], where)
    if "source_id" not in entry:  # of another tool, maybe on Windows
        entry["file_name"] = PureWindowsPath(entry["file_name"]).as_posix()
    for key in ("cell_type", "group", "source_id", "cut_from"):
        if entry.get(key) is not None:
            _check_text(entry, key, where)
    sides = {key: _side(entry.get(key), f"{where} has the {key}") for key in ("height", "width")}
    if None in sides.values():
        sides = dict.fromkeys(sides)
    entry |= sides
    if math.prod(side or 0 for side in sides.values()) > MAX_PIXELS:
        raise CellSegError(f"{where} is of {entry['width']} × {entry['height']} pixels, beyond any image")


def _check_text(entry: Mapping, key: str, where: str) -> None:
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise CellSegError(f"{where} has the {key} {text!r:.60}, which is not a name")


def _numbers(entries: Iterable[Mapping], kind: str, source: object) -> dict[int | str, int]:
    """The number of each entry by what the file calls it."""
    keys = []
    for number, entry in enumerate(entries):
        own = id_key(entry.get("id"))
        if own is None:
            raise CellSegError(
                f"{source} is not a COCO JSON: {kind} {number} (from 0) has the id {entry.get('id')!r:.40}, "
                "which is not a number or name"
            )
        keys.append(own)
    if len(set(keys)) < len(keys):
        twice = Counter(keys).most_common(1)[0][0]
        raise CellSegError(f"{source} is not a COCO JSON: two entries for a(n) {kind} have the same id {twice}")
    if all(isinstance(own, int) for own in keys):
        return dict(zip(keys, keys, strict=True))  # type: ignore[arg-type]
    return {own: number for number, own in enumerate(keys, start=1)}


def id_key(value: Any) -> int | str | None:
    """An id in one form, whether it is written 7, 7.0 or "7"; None if it is not an id."""
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdigit() and len(digits) < 19 else text
        return value if text and text.isprintable() else None
    if not is_finite(value) or value != int(value) or abs(value) >= 2**63:
        return None
    return int(value)


def _side(value: Any, what: str) -> int | None:
    """Pixels of an image's side, None where nothing, or no number above 0, is given."""
    if value is None:
        return None
    number = id_key(value)
    if not isinstance(number, int):
        raise CellSegError(f"{what} {value!r:.40}, which is not a whole number")
    return number if number > 0 else None


def is_finite(value: Any) -> bool:
    """Whether a value of a JSON is a number that a float can hold."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _is_compressed(rle: Mapping, size: tuple[int, int]) -> bool:
    return isinstance(rle.get("counts"), str) and isinstance(rle.get("size"), list) and tuple(rle["size"]) == size


def _find(root: Path, name: str) -> Path:
    """The file called ``name`` in a folder, or called by the end of that path if only this exists."""
    parts = PurePosixPath(name).parts
    for first in range(len(parts)):
        path = root.joinpath(*parts[first:])
        if path.is_file():
            return path
    return root / name
