"""Map a dataset dict to a training sample: image, boxes, classes and masks, augmented together."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog
from detectron2.structures import BitMasks, Boxes, Instances

from cellseg_d2.data.augmentations.build import build_test_augmentations, build_train_augmentations
from cellseg_d2.data.augmentations.copy_paste import paste_cells, visible_parts
from cellseg_d2.data.augmentations.random_draws import seed, uniform
from cellseg_d2.data.augmentations.settings import interval
from cellseg_d2.data.catalog import IGNORE, ignored_regions
from cellseg_d2.data.label_masks import LabelMasks
from cellseg_d2.datasets.coco_file import is_cell
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.intensity import to_uint8
from cellseg_d2.images.read import read_image
from cellseg_d2.io.cache import BoundedCache
from cellseg_d2.masks.coco import rles_of
from cellseg_d2.masks.components import components, split_components
from cellseg_d2.masks.crop import MaskCrop, coco_to_crop, united
from cellseg_d2.masks.dense_targets import dense_targets
from cellseg_d2.masks.ignore import without_cells
from cellseg_d2.masks.layers import LabelLayers
from cellseg_d2.masks.rle import RLEError
from cellseg_d2.modeling.dense_rcnn import TARGETS as DENSE_TARGETS
from cellseg_d2.modeling.dense_rcnn import dense_stride

MASK_FORMATS = ("layers", "bitmask")


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with its cells, before or after augmentation.

    Attributes:
        image: uint8 ``(H, W)``.
        masks: masks of ``N`` cells.
        classes: int64 ``(N,)``.
        ignore: bool ``(H, W)``, where nobody annotated; None where all counts.
    """

    image: np.ndarray
    masks: LabelLayers
    classes: np.ndarray
    ignore: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        ignored = 0 if self.ignore is None else self.ignore.nbytes
        return self.image.nbytes + self.masks.nbytes + self.classes.nbytes + ignored


class CellDatasetMapper:
    """Reads an image, augments it, and makes the training targets from the transformed masks.

    Masks are kept as a few label images (:class:`LabelLayers`), so that an augmentation costs one warp a layer rather
    than one a cell. Boxes are always recomputed from the transformed masks; cells that are left with too few pixels are
    dropped; an image without cells is a valid sample. Regions in which nobody annotated are transformed along with the
    masks, and what is learnt from them is nothing: see :class:`LabelMasks`, :func:`dense_targets`. The image
    stays grey, ``(H, W)``, until the end.

    Works without a configuration: all arguments are plain values.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation],
        channels: int = 3,
        mask_format: str = "layers",
        min_cell_area: int = 10,
        min_visible: float = 0.0,
        intensity: str = "auto",
        intensity_percentiles: tuple[float, float] = (0.1, 99.9),
        cache_bytes: int = 0,
        paste_from: Sequence[dict] = (),
        paste_probability: float = 0.0,
        paste_count: int = 10,
        paste_scale: tuple[float, float] = (1.0, 1.0),
        dense_stride: int = 0,
    ):
        """
        Args:
            is_train: whether samples get ``instances``; otherwise annotations are left out.
            augmentations: applied in this order.
            channels: number of channels of the network's input; the grey image is repeated.
            mask_format: ``"layers"`` for :class:`LabelMasks`, or ``"bitmask"`` for Detectron2's own way, one full-size
                mask a cell, each transformed by itself.
            min_cell_area: cells with fewer pixels after the augmentation are dropped.
            min_visible: cells of which less than this share is left are dropped, 0 … 1; changes of scale are
                accounted for, as far as the whole image is scaled by one factor.
            intensity, intensity_percentiles: see :func:`cellseg_d2.images.intensity.to_uint8`.
            cache_bytes: bytes of decoded images and masks that each worker process keeps in memory.
            paste_from: dataset dicts from which cells are pasted into others.
            paste_probability: the chance that this happens to a sample.
            paste_count: the most cells that are pasted.
            paste_scale: range of the random factor by which each is resized.
            dense_stride: where above 0, samples also get ``dense``, the maps of :func:`dense_targets` at this stride.
        """
        if mask_format not in MASK_FORMATS:
            raise CellSegError(f"the mask format is {mask_format!r}; it can be {' or '.join(MASK_FORMATS)}")
        if dense_stride and mask_format != "layers":
            raise CellSegError("a dense branch learns from masks as layers: set INPUT.MASK_LAYERS True")
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.channels = channels
        self.mask_format = mask_format
        self.min_cell_area = min_cell_area
        self.min_visible = min_visible
        self.intensity = intensity
        self.intensity_percentiles = tuple(intensity_percentiles)
        self.paste_from = paste_from
        self._kinds = [_kinds(entry) for entry in paste_from]
        self._alike: dict[frozenset[int], list[int]] = {}  # indices of paste_from by kinds of cells, once asked for
        self.paste_probability = paste_probability
        self.paste_count = paste_count
        self.paste_scale = tuple(paste_scale)
        self.dense_stride = dense_stride
        self._cache: BoundedCache[Sample] = BoundedCache(cache_bytes, lambda sample: sample.nbytes)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict:
        paste = cfg.INPUT.COPY_PASTE
        sources = paste.DATASETS or cfg.DATASETS.TRAIN if is_train and paste.PROBABILITY > 0 else ()
        return {
            "is_train": is_train,
            "augmentations": build_train_augmentations(cfg) if is_train else build_test_augmentations(cfg),
            "channels": len(cfg.MODEL.PIXEL_MEAN),
            "mask_format": "layers" if cfg.INPUT.MASK_LAYERS else "bitmask",
            "min_cell_area": cfg.INPUT.MIN_CELL_AREA,
            "min_visible": cfg.INPUT.MIN_CELL_VISIBLE,
            "intensity": cfg.INPUT.INTENSITY,
            "intensity_percentiles": cfg.INPUT.INTENSITY_PERCENTILES,
            "cache_bytes": int(cfg.DATALOADER.CACHE_MB * 2**20) if is_train else 0,
            "paste_from": [entry for name in sources for entry in DatasetCatalog.get(name) if entry["annotations"]],
            "paste_probability": paste.PROBABILITY if is_train else 0.0,
            "paste_count": paste.COUNT,
            "paste_scale": interval(cfg, "COPY_PASTE.SCALE", positive=True),
            "dense_stride": dense_stride(cfg) if is_train else 0,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """One sample.

        Args:
            dataset_dict: in Detectron2's standard format, with COCO RLE or polygons; it is not changed.

        Returns:
            The dict without its annotations, with ``image``, uint8 ``(C, H, W)``, and in training ``instances`` with
            ``gt_boxes``, ``gt_classes`` and ``gt_masks``, beside ``dense`` where that is asked for.
        """
        result = {key: value for key, value in dataset_dict.items() if key not in ("annotations", IGNORE)}
        if not self.is_train:
            aug_input = T.AugInput(self.read_image(dataset_dict))
            self.augmentations(aug_input)
            result["image"] = image_to_tensor(aug_input.image, self.channels)
            return result
        sample = self.load(dataset_dict)
        if self.paste_from and uniform(0, 1) < self.paste_probability:
            sample = self.paste(sample)
        aug_input = T.AugInput(sample.image, boxes=sample.masks.boxes.astype(np.float64))
        transforms = self.augmentations(aug_input)
        result["image"] = image_to_tensor(aug_input.image, self.channels)
        make = self.make_instances if self.mask_format == "layers" else self.make_bitmask_instances
        result["instances"] = instances = make(sample, transforms)
        if self.dense_stride:
            classes = instances.gt_classes.numpy()
            ignore = None if instances.gt_masks.ignore is None else instances.gt_masks.ignore.numpy()
            targets = dense_targets(instances.gt_masks.to_label_layers(), classes, self.dense_stride, ignore)
            result[DENSE_TARGETS] = {name: torch.from_numpy(value) for name, value in vars(targets).items()}
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

    def load(self, dataset_dict: dict) -> Sample:
        """The image and all its cells, decoded, from the cache where it has them."""
        # Datasets may annotate one file differently. Loaders hand out copies of their dicts, so identity says nothing.
        cells = [(a["category_id"], is_cell(a), a.get("segmentation")) for a in dataset_dict["annotations"]]
        key = dataset_dict["file_name"], hash(pickle.dumps((cells, dataset_dict.get(IGNORE))))
        return self._cache.get(key, lambda: self._load(dataset_dict))

    def _load(self, dataset_dict: dict) -> Sample:
        image = self.read_image(dataset_dict)
        annotations = [a for a in dataset_dict["annotations"] if is_cell(a)]
        try:
            masks = LabelLayers.from_coco(rles_of(annotations, *image.shape), *image.shape)
            regions = [coco_to_crop(rle) for rle in ignored_regions(dataset_dict, *image.shape)]
        except RLEError as error:
            raise CellSegError(f"{dataset_dict['file_name']}: a cell cannot be trained on: {error}") from None
        classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)
        ignore = None
        if (region := united(regions)) is not None:
            ignore = without_cells(region.to_full(*image.shape), masks.crops())
        return Sample(image, masks, classes, ignore)

    def paste(self, sample: Sample) -> Sample:
        """The sample with cells of another image of the training set in it, of a kind that it has already.

        Other kinds of cells grow on other grounds, which would give them away.
        """
        rng = np.random.default_rng(seed())
        kinds = frozenset(sample.classes.tolist())
        if kinds not in self._alike:
            self._alike[kinds] = [i for i, own in enumerate(self._kinds) if own and (not kinds or kinds & own)]
        if not (alike := self._alike[kinds]):
            return sample
        source = self.load(self.paste_from[alike[rng.integers(len(alike))]])
        count = int(rng.integers(1, self.paste_count + 1))
        crops = sample.masks.crops()
        image, pasted, indices = paste_cells(
            sample.image, crops, source.image, source.masks.crops(), count, rng, scale=self.paste_scale
        )
        height, width = image.shape
        masks = LabelLayers.from_crops([*visible_parts(crops, pasted, height, width), *pasted], height, width)
        ignore = None if sample.ignore is None else without_cells(sample.ignore, pasted)
        return Sample(image, masks, np.concatenate([sample.classes, source.classes[indices]]), ignore)

    def make_instances(self, sample: Sample, transforms: T.TransformList) -> Instances:
        """The targets: each layer of masks transformed as the image was, and the boxes that fit them."""
        masks, origin = sample.masks.map_layers(transforms.apply_segmentation), np.arange(len(sample.masks))
        if _splits_labels(transforms):
            masks, origin = split_components(masks)
        keep = masks.areas >= self.least_areas(sample, origin, transforms)
        masks = masks.select(keep)
        instances = Instances((masks.height, masks.width))
        instances.gt_masks = LabelMasks.from_label_layers(masks)
        if sample.ignore is not None:
            ignore = transforms.apply_segmentation(sample.ignore.astype(np.uint8)) > 0
            instances.gt_masks.ignore = torch.from_numpy(ignore)
        instances.gt_boxes = Boxes(torch.from_numpy(masks.boxes.astype(np.float32)))
        instances.gt_classes = torch.from_numpy(sample.classes[origin[keep]])
        return instances

    def least_areas(self, sample: Sample, origin: np.ndarray, transforms: T.TransformList) -> np.ndarray:
        """Pixels that each mask needs to be kept, float64 ``(M,)``, where mask ``i`` is of cell ``origin[i]``."""
        least = np.full(len(origin), max(self.min_cell_area, 1), dtype=np.float64)
        if self.min_visible > 0:
            factor = self.min_visible * _area_factor(transforms, sample.image.shape)
            least = np.maximum(least, factor * sample.masks.areas[origin])
        return least

    def make_bitmask_instances(self, sample: Sample, transforms: T.TransformList) -> Instances:
        """As :meth:`make_instances` in Detectron2's own form: one full-size mask a cell, each transformed by itself."""
        shape = sample.image.shape
        image_size = transforms.apply_segmentation(np.zeros(shape, np.uint8)).shape
        masks, origin = [], []
        for index, crop in enumerate(sample.masks.crops()):
            mask = transforms.apply_segmentation(crop.to_full(*shape).astype(np.uint8)).astype(bool)
            split = _splits_labels(transforms)
            parts = [p.to_full(*image_size) for p in components(MaskCrop.from_full(mask))] if split else [mask]
            masks.extend(parts)
            origin.extend([index] * len(parts))
        stack = np.stack(masks) if masks else np.zeros((0, *image_size), dtype=bool)
        origin = np.array(origin, dtype=np.int64)
        keep = stack.sum(axis=(1, 2)) >= self.least_areas(sample, origin, transforms)
        bit_masks = BitMasks(torch.from_numpy(stack[keep]))
        instances = Instances(image_size)
        instances.gt_masks = bit_masks
        instances.gt_boxes = bit_masks.get_bounding_boxes()
        instances.gt_classes = torch.from_numpy(sample.classes[origin[keep]])
        return instances


def _kinds(entry: dict) -> frozenset[int]:
    return frozenset(a["category_id"] for a in entry["annotations"] if is_cell(a))


def _splits_labels(transforms: T.TransformList) -> bool:
    """Whether one label may come out as several cells, because of mirrored copies."""
    return any(getattr(transform, "splits_labels", False) for transform in transforms.transforms)


def _area_factor(transforms: T.TransformList, shape: tuple[int, int]) -> float:
    """By how much areas grow, measured at the middle of an image of ``shape``."""
    middle = np.array(shape[::-1], dtype=np.float64) / 2
    origin, right, down = transforms.apply_coords(middle + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    return float(abs(np.linalg.det([right - origin, down - origin])))


def image_to_tensor(image: np.ndarray, channels: int) -> torch.Tensor:
    """Grey ``(H, W)`` uint8 as the network's ``(channels, H, W)`` uint8."""
    return torch.from_numpy(np.repeat(image[None], channels, axis=0))
