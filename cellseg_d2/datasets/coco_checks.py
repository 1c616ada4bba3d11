"""Whether what a JSON holds has the form of COCO's files, so that all that read it may rely on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.text import check_inside
from cellseg_d2.masks.rle import MAX_PIXELS


def check_coco(content: object, source: object) -> tuple[list[dict], list[dict], list[dict]]:
    """The images, annotations and categories of a COCO JSON of any origin.

    Numbers of pixels that are whole but written as ``704.0`` become integers. Masks are not looked at.

    Args:
        content: of the JSON; ``annotations`` may be a dict by id, as in some files of LIVECell.
        source: what was read, for the message.

    Returns:
        Copies of the three lists of dicts. Images have a whole ``id`` that no other has, ``file_name``, ``height`` and
        ``width``; categories a whole ``id`` that no other has and ``name``; annotations ``image_id``, which may name no
        image.

    Raises:
        CellSegError: it is something else; the message says what, and which entry.
    """
    needed = ("images", "annotations", "categories")
    if not isinstance(content, Mapping) or not set(needed) <= content.keys():
        raise CellSegError(f"{source} is no COCO JSON: it needs images, annotations and categories")
    images, annotations, categories = (_entries(content[key], key, source) for key in needed)
    for number, entry in enumerate(images):
        where = f"{source} is no COCO JSON: image {number} (from 0)"
        _check_text(entry, "file_name", where)
        check_inside(entry["file_name"], where)
        for key in ("cell_type", "group", "source_id"):
            if entry.get(key) is not None:
                _check_text(entry, key, where)
        for key in ("height", "width"):
            entry[key] = _whole(entry.get(key), f"{where} has the {key}")
        if entry["height"] * entry["width"] > MAX_PIXELS:
            raise CellSegError(f"{where} is of {entry['width']} × {entry['height']} pixels, beyond any image")
    for number, entry in enumerate(categories):
        _check_text(entry, "name", f"{source} is no COCO JSON: category {number} (from 0)")
    for key, entries in (("image", images), ("category", categories)):
        _check_ids(entries, key, source)
    for number, entry in enumerate(annotations):
        where = f"{source} is no COCO JSON: annotation {number} (from 0)"
        for key in ("image_id", "category_id", "id"):
            if key == "image_id" or key in entry:
                _whole(entry.get(key), f"{where} has the {key}")
        if entry.get("iscrowd", 0) not in (0, 1):
            raise CellSegError(f"{where} has the iscrowd {entry['iscrowd']!r:.40}, which is neither 0 nor 1")
        check_numbers(entry, where)
    return images, annotations, categories


def is_cell(annotation: Mapping) -> bool:
    """Whether an annotation is one cell: not a region marked ``iscrowd``, which nobody trains on, counts, or scores.

    COCO's and LIVECell's own measures of average precision are the exception: there such regions are ignored where
    detections fall into them.
    """
    return not annotation.get("iscrowd", 0)


def check_numbers(entry: Mapping, where: str) -> None:
    """Refuse a ``bbox``, an ``area`` or a ``score`` that is there and is no finite number, or no four of them.

    Raises:
        CellSegError: says which, after ``where``.
    """
    for key in ("area", "score"):
        if key in entry and not _is_finite(entry[key]):
            raise CellSegError(f"{where} has the {key} {entry[key]!r:.40}, which is no finite number")
    if "bbox" in entry:
        box = entry["bbox"]
        if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_finite, box)):
            raise CellSegError(f"{where} has the bbox {box!r:.60}, which is no x, y, width and height")


def _entries(value: object, key: str, source: object) -> list[dict]:
    values = value.values() if isinstance(value, Mapping) else value
    if not isinstance(values, Iterable) or isinstance(values, str) or not all(isinstance(v, Mapping) for v in values):
        raise CellSegError(f"{source} is no COCO JSON: its {key} are no list of objects")
    return [dict(entry) for entry in values]


def _check_text(entry: Mapping, key: str, where: str) -> None:
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        raise CellSegError(f"{where} has the {key} {text!r:.60}, which is no name")


def _check_ids(entries: Iterable[Mapping], kind: str, source: object) -> None:
    known = set()
    for number, entry in enumerate(entries):
        own = entry.get("id")
        if not isinstance(own, Integral) or isinstance(own, bool) or abs(int(own)) >= 2**63:
            raise CellSegError(f"{source} is no COCO JSON: {kind} {number} (from 0) has the id {own!r:.40}")
        if own in known:
            raise CellSegError(f"{source} is no COCO JSON: two entries for a(n) {kind} have the same id {own}")
        known.add(own)


def _whole(value: Any, what: str) -> int:
    if not _is_finite(value) or value != int(value) or abs(value) >= 2**63:
        raise CellSegError(f"{what} {value!r:.40}, which is no whole number")
    return int(value)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and -math.inf < value < math.inf
