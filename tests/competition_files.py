"""The competition's files, written from crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cellseg_d2.masks.crop import MaskCrop, crop_to_kaggle
from cellseg_d2.predictions.submission import write_submission


def write_train_csv(
    path: Path, cells: Mapping[str, Sequence[MaskCrop]], height: int, width: int, types: str | Mapping[str, str]
) -> Path:
    """Annotations: cells by image name; the types of the images, or the one of all."""
    rows = ["id,annotation,width,height,cell_type"]
    for name, crops in cells.items():
        kind = types if isinstance(types, str) else types[name]
        rows += [f"{name},{text},{width},{height},{kind}" for text in as_texts(crops, width) or [""]]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_predicted(path: Path, cells: Mapping[str, Sequence[MaskCrop]], width: int) -> Path:
    """A submission: cells by image name."""
    write_submission(path, {name: as_texts(crops, width) for name, crops in cells.items()})
    return path


def as_texts(crops: Sequence[MaskCrop], width: int) -> list[str]:
    return [crop_to_kaggle(crop, width) for crop in crops]
