"""Records as one COCO JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cellseg_d2.datasets.coco_json import category_ids, encode_record, write_coco_files
from cellseg_d2.datasets.records import ImageRecord


def write_coco(
    path: Path, records: Iterable[ImageRecord], categories: Sequence[str], info: Mapping | None = None
) -> None:
    """Write the images, numbered from 1 on, with the names of all cell types, and what goes under ``info``."""
    ids = category_ids(categories)
    encoded = [encode_record(record, number, ids) for number, record in enumerate(records, start=1)]
    write_coco_files({path: (encoded, info or {})}, categories)
