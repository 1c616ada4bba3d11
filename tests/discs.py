"""A small converted dataset of bright and dark discs, which a Mask R-CNN learns within a few iterations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cellseg_d2.masks.crop import MaskCrop, crop_to_coco

CLASSES = ("bright", "dark")


def disc_image(generator: np.random.Generator, size: int, count: int, class_index: int):
    """An image of ``count`` discs of one class, and their masks; later discs never cover earlier ones."""
    image = generator.normal(128, 5, (size, size))
    taken = np.zeros((size, size), bool)
    crops = []
    y, x = np.mgrid[:size, :size]
    while len(crops) < count:
        radius = generator.uniform(size / 14, size / 8)
        center_y, center_x = generator.uniform(radius, size - radius, 2)
        disc = (y + 0.5 - center_y) ** 2 + (x + 0.5 - center_x) ** 2 <= radius**2
        if (disc & taken).any():
            continue
        taken |= disc
        image[disc] += 60 if class_index == 0 else -60
        crops.append(MaskCrop.from_full(disc))
    return np.clip(image, 0, 255).astype(np.uint8), crops


def write_disc_dataset(root: Path, *, images: int = 4, size: int = 96, count: int = 5, name: str = "discs") -> Path:
    """Write ``root/<name>/instances_{train,val}.json`` and images; the last image of each split has no cells."""
    generator = np.random.default_rng(0)
    folder = root / name
    (folder / "images").mkdir(parents=True)
    for split in ("train", "val"):
        content = {
            "info": {"image_root": "images"},
            "images": [],
            "annotations": [],
            "categories": [{"id": i + 1, "name": kind} for i, kind in enumerate(CLASSES)],
        }
        for index in range(images):
            class_index = index % 2
            image, crops = disc_image(generator, size, 0 if index == images - 1 else count, class_index)
            file_name = f"{split}{index}.png"
            cv2.imwrite(str(folder / "images" / file_name), image)
            content["images"].append({"id": index + 1, "file_name": file_name, "height": size, "width": size})
            for crop in crops:
                x0, y0, x1, y1 = crop.box
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": index + 1,
                        "category_id": class_index + 1,
                        "segmentation": crop_to_coco(crop, size, size),
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": crop.area,
                        "iscrowd": 0,
                    }
                )
        (folder / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def change_first_cell(folder: Path, split: str, **changed: int) -> dict:
    """Change the first annotation of what :func:`write_disc_dataset` wrote; returns the new content of the JSON."""
    path = folder / f"instances_{split}.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= changed
    path.write_text(json.dumps(content))
    return content


def write_untrained_run(folder: Path, config_file: Path, opts: Sequence[str] = ()) -> Path:
    """Write what a training run leaves, with random weights and thresholds so low that something is found."""
    import torch
    from detectron2.modeling import build_model

    from cellseg_d2.config import load_config

    cfg = load_config(config_file, ["MODEL.DEVICE", "cpu", *opts])
    cfg.MODEL.CLASS_NAMES = list(CLASSES)
    cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS = [0.1]
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model_best.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder
