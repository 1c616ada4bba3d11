"""Converted datasets by name in Detectron2's catalogs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from cellseg_d2.datasets.coco_checks import check_coco, is_cell
from cellseg_d2.errors import CellSegError, one_line
from cellseg_d2.io.text import read_json

PREFIX = "instances_"
logger = logging.getLogger(__name__)


def datasets_root() -> Path:
    """``$DETECTRON2_DATASETS``, by default ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def register_folder(folder: str | Path, name: str | None = None) -> list[str]:
    """Register every ``instances_<split>.json`` of a folder that ``tools/convert_to_coco.py`` wrote.

    Registering again is harmless: the names then mean the files that are there now.

    Args:
        folder: of the JSON files. Each of them names the folder of its images in ``info.image_root``.
        name: first part of the datasets' names, by default the folder's.

    Returns:
        The names, ``<name>_<split>``, for example ``sartorius_train`` or ``sartorius_fold0_val``.
    """
    folder = Path(folder)
    name = name or folder.resolve().name
    names = []
    for json_file in sorted(folder.glob(f"{PREFIX}*.json")):
        dataset = f"{name}_{json_file.stem.removeprefix(PREFIX)}"
        _register(dataset, json_file)
        names.append(dataset)
    return names


def register_all(root: str | Path | None = None) -> list[str]:
    """Register every converted folder right under ``root`` (default :func:`datasets_root`); returns the names."""
    root = Path(root) if root is not None else datasets_root()
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [name for folder in folders for name in register_folder(folder)]


def _register(dataset: str, json_file: Path) -> None:
    if dataset in DatasetCatalog.list():
        DatasetCatalog.remove(dataset)
        MetadataCatalog.pop(dataset, None)
    DatasetCatalog.register(dataset, lambda: _load(dataset, json_file))
    MetadataCatalog.get(dataset).set(json_file=str(json_file), evaluator_type="coco")


def _load(dataset: str, json_file: Path) -> list[dict]:
    """Detectron2's standard dataset dicts, without regions that are no cells; the masks stay compressed COCO RLE."""
    try:
        # A relative root is relative to the JSON, so that a dataset can be moved as a whole.
        entries = load_coco_json(str(json_file), str(json_file.parent / _image_root(json_file)), dataset)
    except CellSegError as error:
        raise CellSegError(f"{error}; convert it again with tools/convert_to_coco.py") from None
    except MemoryError:
        raise
    except Exception as error:  # Detectron2 and pycocotools trust such files, down to bare assertions
        raise CellSegError(
            f"{json_file} cannot be read as a converted dataset ({one_line(error)}); convert it again with "
            f"tools/convert_to_coco.py"
        ) from None

    crowds = 0
    for entry in entries:
        cells = [annotation for annotation in entry["annotations"] if is_cell(annotation)]
        crowds += len(entry["annotations"]) - len(cells)
        entry["annotations"] = cells
    if crowds:
        _tell_crowds(dataset, crowds)
    return entries


@cache
def _tell_crowds(dataset: str, crowds: int) -> None:
    """Once, however often the dataset is read."""
    logger.warning("%s: regions marked iscrowd are left out: %d", dataset, crowds)


def _image_root(json_file: Path) -> str:
    """What the JSON says of its images' folder; refuses one on whose form Detectron2's reader could not rely."""
    content = read_json(json_file)
    _, annotations, _ = check_coco(content, json_file)
    for annotation in annotations:
        lacking = {"id", "category_id", "segmentation", "bbox"} - annotation.keys()
        if lacking:
            raise CellSegError(f"{json_file}, annotation {annotation.get('id')}: it lacks {min(lacking)}")
    info = content.get("info")
    image_root = info.get("image_root") if isinstance(info, Mapping) else None
    if not isinstance(image_root, str):
        raise CellSegError(f"{json_file} does not name the folder of its images under info.image_root")
    return image_root


def require_datasets(names: Iterable[str], root: str | Path | None = None) -> None:
    """Register what is under the root and make sure that all ``names`` are known.

    Raises:
        CellSegError: a name is unknown; the message lists those that were found, and where it was looked.
    """
    root = Path(root) if root is not None else datasets_root()
    found = register_all(root)
    missing = [name for name in names if name not in DatasetCatalog.list()]
    if missing:
        raise CellSegError(
            f"dataset {missing[0]!r} is not in {root.resolve()} (found: {', '.join(found) or 'none'}); "
            f"convert it with tools/convert_to_coco.py, or set DETECTRON2_DATASETS to the folder that holds it"
        )
