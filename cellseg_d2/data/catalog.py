"""Register converted datasets in Detectron2's catalogs."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from cellseg_d2.datasets.coco_file import is_cell, read_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.coco import rles_of

PREFIX = "instances_"
# The key of a dataset dict for the regions in which nobody annotated, compressed COCO RLE; only where there are any.
IGNORE = "ignore"
logger = logging.getLogger(__name__)


def datasets_root() -> Path:
    """``$DETECTRON2_DATASETS``, by default ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def register_folder(folder: str | Path) -> list[str]:
    """Register every ``instances_<split>.json`` of a folder that ``cellseg-d2 convert-to-coco`` wrote.

    Registering again is harmless: the names then mean the files that are there now.

    Args:
        folder: folder of the JSON files. Each of them names the folder of its images in ``info.image_root``.

    Returns:
        The names, ``<folder>_<split>``, for example ``sartorius_train`` or ``sartorius_fold0_val``.
    """
    files = sorted(Path(folder).glob(f"{PREFIX}*.json"))
    for json_file in files:
        _register(_dataset_of(json_file), json_file)
    return list(map(_dataset_of, files))


def register_json(path: str | Path) -> str:
    """Register a file that ``cellseg-d2 convert-to-coco`` wrote, and those beside it; returns the file's dataset name.

    Raises:
        CellSegError: there is no such file, or it has another kind of name.
    """
    path = Path(path)
    if not path.is_file():
        raise CellSegError(f"{path} does not exist; convert the annotations with cellseg-d2 convert-to-coco")
    if not (path.name.startswith(PREFIX) and path.suffix == ".json"):
        raise CellSegError(f"{path} is not named {PREFIX}<part>.json, as cellseg-d2 convert-to-coco names its files")
    register_folder(path.parent)
    return _dataset_of(path)


def register_all() -> list[str]:
    """Register every converted folder right under :func:`datasets_root`; returns the names."""
    root = datasets_root()
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [name for folder in folders for name in register_folder(folder)]


def _dataset_of(json_file: Path) -> str:
    return f"{json_file.parent.resolve().name}_{json_file.stem.removeprefix(PREFIX)}"


def _register(dataset: str, json_file: Path) -> None:
    if dataset in DatasetCatalog.list():
        DatasetCatalog.remove(dataset)
        MetadataCatalog.pop(dataset, None)
    DatasetCatalog.register(dataset, lambda: _load(dataset, json_file))
    MetadataCatalog.get(dataset).set(json_file=str(json_file), evaluator_type="coco")


def _load(dataset: str, json_file: Path) -> list[dict]:
    try:
        return _dataset_dicts(dataset, json_file)
    except CellSegError as error:
        raise CellSegError(f"{error}; convert it again with cellseg-d2 convert-to-coco") from None


def _dataset_dicts(dataset: str, json_file: Path) -> list[dict]:
    """Detectron2's standard dataset dicts, in the order of the images' ids.

    Regions marked ``iscrowd`` are not cells: an image that has any has their masks under ``"ignore"``. All masks are
    compressed COCO RLE, whatever the file has; boxes that it lacks are those of the masks.
    """
    file = read_coco(json_file)
    if file.image_root is None:
        raise CellSegError(
            f"{json_file} does not name the folder of its images under info.image_root, and they are not beside it"
        )
    classes = {number: index for index, number in enumerate(file.categories)}
    MetadataCatalog.get(dataset).set(
        thing_classes=list(file.categories.values()), thing_dataset_id_to_contiguous_id=classes
    )
    paths = file.image_paths()
    entries: dict[int, dict] = {}
    for number in sorted(file.images):
        height, width = file.size(number)
        entries[number] = {
            "file_name": str(paths[number]),
            "height": height,
            "width": width,
            "image_id": number,
            "annotations": [],
        }
    left_out: Counter[str] = Counter()
    for annotation, rle, outside in file.masks(compressed=True):
        if not is_cell(annotation):
            entries[annotation["image_id"]].setdefault(IGNORE, []).append(rle)
            continue
        box = annotation.get("bbox")
        if box is None or isinstance(annotation["segmentation"], list):
            # Of polygons only what is inside the image is a cell.
            box = coco_mask.toBbox(rle).tolist()
            if box[2] == 0 or box[3] == 0:
                left_out["annotations without a pixel of the image are left out"] += 1
                continue
        left_out["polygons that leave the image are cut off at its border"] += outside > 0
        entries[annotation["image_id"]]["annotations"].append(
            {
                "iscrowd": 0,
                "bbox": box,
                "category_id": classes[annotation["category_id"]],
                "segmentation": rle,
                "bbox_mode": BoxMode.XYWH_ABS,
            }
        )
    for what, count in left_out.items():
        if count:
            _tell(dataset, what, count)
    return list(entries.values())


def has_ignored(entry: Mapping) -> bool:
    """Whether a dataset dict has any :func:`ignored_regions`."""
    return IGNORE in entry or not all(map(is_cell, entry["annotations"]))


def ignored_regions(entry: Mapping, height: int, width: int) -> list[dict]:
    """The regions of a dataset dict in which nobody annotated.

    Datasets of Detectron2's own ``register_coco_instances`` have them among the annotations, marked ``iscrowd``.

    Args:
        entry: the dict.
        height, width: size of its image in pixels.

    Returns:
        Compressed COCO RLEs.

    Raises:
        RLEError: one has no mask, or a damaged one.
    """
    marked = [annotation for annotation in entry["annotations"] if not is_cell(annotation)]
    return [*entry.get(IGNORE, ()), *rles_of(marked, height, width)]


@cache
def _tell(dataset: str, what: str, count: int) -> None:
    """Log a message once, however often the dataset is read."""
    logger.warning("%s: %s: %d", dataset, what, count)


def require_datasets(names: Iterable[str]) -> None:
    """Register what is under :func:`datasets_root` and make sure that all ``names`` are known.

    Raises:
        CellSegError: a name is unknown; the message lists those that were found, and where it was looked.
    """
    found = register_all()
    missing = [name for name in names if name not in DatasetCatalog.list()]
    if missing:
        raise CellSegError(
            f"dataset {missing[0]!r} is not in {datasets_root().resolve()} (found: {', '.join(found) or 'none'}); "
            f"convert it with cellseg-d2 convert-to-coco, or set DETECTRON2_DATASETS to the folder that holds it"
        )
