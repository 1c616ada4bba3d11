"""LIVECell: polygons in COCO JSON, images in sub-folders by cell line, its own train, val and test parts.

The Kaggle download has ``images/{livecell_train_val_images,livecell_test_images}/<LINE>/*.tif`` and
``annotations/LIVECell/livecell_coco_{train,val,test}.json``. An image's ``file_name`` begins with its cell line, plate
position and so on (``MCF7_Phase_G4_2_02d16h00m_1.tif``) and names no sub-folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.coco_reader import CocoSource
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.errors import CellSegError

SPLITS = ("train", "val", "test")
CELL_LINES = ("A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SKOV3", "SkBr3")


def find_livecell(path: str | Path, images: str | Path | None = None) -> tuple[dict[str, Path], Path]:
    """Find the parts of LIVECell and the folder of its images.

    Args:
        path: the folder that holds LIVECell, in the layout of the Kaggle download, or one of its JSON files.
        images: the folder of the images; None looks for ``images`` in the folder, or in those above the JSON.

    Returns:
        The JSON file of each part that is there, in the order of :data:`SPLITS`, and the folder of images.

    Raises:
        CellSegError: nothing is found.
    """
    path = Path(path)
    if path.is_file():
        split = re.search(r"(train|val|test)[^/\\]*$", path.stem)
        jsons = {split.group(1) if split else "train": path}
    elif path.is_dir():
        jsons = {}
        for split in SPLITS:
            matches = sorted(path.rglob(f"livecell_coco_{split}.json"))
            if len(matches) > 1:
                raise CellSegError(f"{path} has {len(matches)} files {matches[0].name}; name the JSON instead")
            if matches:
                jsons[split] = matches[0]
    else:
        raise CellSegError(f"{path} does not exist; name the folder of LIVECell or one of its JSON files")
    if not jsons:
        raise CellSegError(f"{path} has no livecell_coco_train.json, livecell_coco_val.json or livecell_coco_test.json")
    if images is not None:
        return jsons, Path(images)
    places = [path] if path.is_dir() else list(path.resolve().parents)[:4]
    for place in places:
        if (place / "images").is_dir():
            return jsons, place / "images"
    raise CellSegError(f"no folder 'images' is found beside {path}; name it with --livecell-images")


def describe_livecell(entry: Mapping) -> tuple[str | None, str | None]:
    """Cell line, and group (line and well), of an image from its name.

    Example:
        >>> describe_livecell({"file_name": "MCF7_Phase_G4_2_02d16h00m_1.tif"})
        ('MCF7', 'MCF7_G4')
    """
    parts = Path(entry["file_name"]).stem.split("_")
    if len(parts) < 3:
        return None, None
    return parts[0], f"{parts[0]}_{parts[2]}"


def livecell_source(
    json_file: str | Path, images: ImageFolder | None = None, by_type: bool = False, drop: tuple[str, ...] = ()
) -> CocoSource:
    """One part of LIVECell.

    Args:
        json_file: its JSON, with ``annotations`` as a list or a dict.
        images: the folder of images, with sub-folders (``recursive=True``).
        by_type: one category per cell line instead of the one category ``cell``.
        drop: names of images to leave out.
    """
    # All lines, also where a part lacks one, so that category ids never depend on what is converted.
    return CocoSource(json_file, images, describe_livecell, CELL_LINES if by_type else ("cell",), drop)


@DATASET_READERS.register("livecell", metavar="PATH")
def open_livecell(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """folder of LIVECell as in the Kaggle download, or one of its JSON files; its own parts are kept"""
    files, root = find_livecell(path, options.images)
    for file in files.values():
        names = list(read_coco(file).categories.values())
        if len(names) > 1 and not set(names) <= set(CELL_LINES):
            raise CellSegError(
                f"{file} has the categories {', '.join(names)}, which none of LIVECell's files has, and which would be "
                "lost: read it with --coco"
            )
    images = ImageFolder(root, options.allow_missing, recursive=True)
    return {part: livecell_source(file, images, options.by_type, options.drop) for part, file in files.items()}
