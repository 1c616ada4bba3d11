"""From a dataset dict to what the model takes: image, boxes, classes and masks, augmented together."""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import BitMasks, Instances

from cellseg_d2.data.augmentations.build import build_test_augmentations, build_train_augmentations
from cellseg_d2.data.images import read_image
from cellseg_d2.data.intensity import to_uint8
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks import coco_to_crop


class CellDatasetMapper:
    """Reads an image, augments it, and makes the training targets from the transformed masks.

    Boxes are always recomputed from the transformed masks; cells that are left with too few pixels are dropped; an
    image without cells is a valid sample. The image stays grey, ``(H, W)``, until the end.

    Works without a configuration: all arguments are plain values.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation],
        channels: int = 3,
        min_cell_area: int = 10,
        intensity: str = "auto",
        intensity_percentiles: tuple[float, float] = (0.1, 99.9),
    ):
        """
        Args:
            is_train: whether samples get ``instances``; without, annotations are left away.
            augmentations: applied in this order.
            channels: of the network's input; the grey image is repeated.
            min_cell_area: cells with fewer pixels after the augmentation are dropped.
            intensity, intensity_percentiles: see :func:`cellseg_d2.data.intensity.to_uint8`.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.channels = channels
        self.min_cell_area = min_cell_area
        self.intensity = intensity
        self.intensity_percentiles = tuple(intensity_percentiles)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict:
        if is_train and cfg.INPUT.MASK_FORMAT != "bitmask":
            raise CellSegError(f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}; it can be bitmask")
        return {
            "is_train": is_train,
            "augmentations": build_train_augmentations(cfg) if is_train else build_test_augmentations(cfg),
            "channels": len(cfg.MODEL.PIXEL_MEAN),
            "min_cell_area": cfg.INPUT.MIN_CELL_AREA,
            "intensity": cfg.INPUT.INTENSITY,
            "intensity_percentiles": cfg.INPUT.INTENSITY_PERCENTILES,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """One sample.

        Args:
            dataset_dict: in Detectron2's standard format, with COCO RLE segmentations; it is not changed.

        Returns:
            The dict without its annotations, with ``image``, uint8 ``(C, H, W)``, and in training ``instances`` with
            ``gt_boxes``, ``gt_classes`` and ``gt_masks``.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        image = self.read_image(dataset_dict)
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        image = aug_input.image
        result["image"] = image_to_tensor(image, self.channels)
        if self.is_train:
            result["instances"] = self.make_instances(dataset_dict, transforms, image.shape[:2])
        return result

    def read_image(self, dataset_dict: dict) -> np.ndarray:
        """The image as uint8 ``(H, W)``, with a check of its size."""
        image = to_uint8(read_image(dataset_dict["file_name"]), self.intensity, self.intensity_percentiles)
        expected = dataset_dict.get("height", image.shape[0]), dataset_dict.get("width", image.shape[1])
        if image.shape != expected:
            raise CellSegError(
                f"{dataset_dict['file_name']} is {image.shape[0]} × {image.shape[1]} pixels (height × width), but its "
                f"annotations are for {expected[0]} × {expected[1]}"
            )
        return image

    def make_instances(self, dataset_dict: dict, transforms: T.TransformList, image_size: tuple[int, int]) -> Instances:
        """The targets: each mask transformed as the image was, and the boxes that fit them."""
        height, width = dataset_dict["height"], dataset_dict["width"]
        annotations = [a for a in dataset_dict["annotations"] if not a.get("iscrowd", 0)]
        masks = np.zeros((len(annotations), *image_size), dtype=bool)
        for mask, annotation in zip(masks, annotations, strict=True):
            full = coco_to_crop(annotation["segmentation"]).to_full(height, width)
            mask[:] = transforms.apply_segmentation(full.astype(np.uint8))
        keep = masks.sum(axis=(1, 2)) >= max(self.min_cell_area, 1)
        classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)
        instances = Instances(image_size)
        bit_masks = BitMasks(torch.from_numpy(masks[keep]))
        instances.gt_masks = bit_masks
        instances.gt_boxes = bit_masks.get_bounding_boxes()
        instances.gt_classes = torch.from_numpy(classes[keep])
        return instances


def image_to_tensor(image: np.ndarray, channels: int) -> torch.Tensor:
    """Grey ``(H, W)`` uint8 as the network's ``(channels, H, W)`` uint8."""
    # A flipped array has negative strides, which torch does not take.
    return torch.from_numpy(np.ascontiguousarray(image)).expand(channels, *image.shape).contiguous()
