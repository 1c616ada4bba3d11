"""Save and load the detections of many images before any threshold, which post-processing is tuned on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg_d2.detections.detections import Detections
from cellseg_d2.errors import CellSegError, no_memory, one_line
from cellseg_d2.io.atomic import atomic_path, unpacked_size
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.rle import MAX_PIXELS

FILE_NAME = "detections.npz"
_FORMAT = "cellseg_d2 detections 1"
# Detections pack well; a file that unpacks to more than so many times its size is made to fill memory.
_MAX_EXPANSION = 1000


@dataclass(frozen=True, eq=False)
class SavedDetections:
    """What :func:`load_detections` returns.

    Attributes:
        images: detections by image name.
        class_names: classes of the model that made them, in the order of its class numbers.
    """

    images: dict[str, Detections]
    class_names: list[str]


def save_detections(path: str | Path, images: Mapping[str, Detections], class_names: Sequence[str]) -> None:
    """Write the detections of many images to an ``.npz`` atomically.

    The arrays, of ``I`` images with ``N`` detections in all: ``names`` ``(I,)``, ``shapes`` int32 ``(I, 2)`` (height,
    width), ``counts`` int32 ``(I,)``, ``mask_sizes`` int32 ``(I,)`` (``M``, or 0 for binary masks), ``boxes`` float32
    ``(N, 4)``, ``scores`` float32 ``(N,)``, ``classes`` int32 ``(N,)``, ``masks`` float16, the M × M grids one after
    another; for binary masks ``crop_boxes`` int32 ``(K, 4)`` and ``crop_bits`` uint8, their pixels packed.

    Args:
        path: file to write.
        images: detections by image name. Probabilities are kept as float16, that is to 0.0005.
        class_names: classes of the model.
    """
    values = list(images.values())
    soft = [d.masks for d in values if isinstance(d.masks, np.ndarray)]
    crops = [crop for d in values if not isinstance(d.masks, np.ndarray) for crop in d.masks]
    arrays = {
        "format": np.array(_FORMAT),
        "class_names": np.array(list(class_names), dtype=str),
        "names": np.array(list(images), dtype=str),
        "shapes": np.array([(d.height, d.width) for d in values], dtype=np.int32).reshape(-1, 2),
        "counts": np.array([len(d) for d in values], dtype=np.int32),
        "mask_sizes": np.array(
            [d.masks.shape[-1] if isinstance(d.masks, np.ndarray) else 0 for d in values], dtype=np.int32
        ),
        "boxes": _joined([d.boxes for d in values], np.float32).reshape(-1, 4),
        "scores": _joined([d.scores for d in values], np.float32),
        "classes": _joined([d.classes for d in values], np.int32),
        "masks": _joined(soft, np.float16),
        "crop_boxes": np.array([crop.box for crop in crops], dtype=np.int32).reshape(-1, 4),
        "crop_bits": np.packbits(_joined([crop.mask for crop in crops], bool)),
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def load_detections(path: str | Path) -> SavedDetections:
    """Read a file of :func:`save_detections`. Nothing in it is executed: no pickle is accepted.

    Raises:
        CellSegError: the file is missing, damaged, or of another kind.
    """
    try:
        if (unpacked := unpacked_size(path)) > _MAX_EXPANSION * Path(path).stat().st_size:
            raise ValueError(f"it unpacks to {unpacked / 1e9:.1f} GB")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays["format"]) != _FORMAT:
            raise ValueError(f"its format is {str(arrays['format'])[:40]!r}, not {_FORMAT!r}")
        class_names = arrays["class_names"].tolist()
        _check_values(arrays, len(class_names))
        return SavedDetections(_images(arrays), class_names)
    except FileNotFoundError:
        raise CellSegError(f"there is no file of detections {str(path)!r}") from None
    except MemoryError:
        raise no_memory(path) from None
    except Exception as error:  # NumPy raises almost anything for a file that is cut, overwritten, or of another kind
        raise CellSegError(
            f"{path} is not a {FILE_NAME} as evaluation writes it with TEST.SAVE_DETECTIONS True, and cellseg-d2 infer "
            f"with --save detections ({one_line(error)})"
        ) from None


def load_many(paths: Sequence[str | Path]) -> SavedDetections:
    """Read several files, such as those of the folds of a cross-validation, as one.

    Raises:
        CellSegError: see :func:`load_detections`; or the classes differ, or an image is in two files.
    """
    images: dict[str, Detections] = {}
    first: SavedDetections | None = None
    for path in paths:
        raw = load_detections(path)
        first = first or raw
        if raw.class_names != first.class_names:
            raise CellSegError(
                f"{path} is of a model with the classes {', '.join(raw.class_names)}, but {paths[0]} of one with "
                f"{', '.join(first.class_names)}"
            )
        if shared := images.keys() & raw.images.keys():
            raise CellSegError(f"image {min(shared)!r} is in {path} and in a file before it; each may be given once")
        images.update(raw.images)
    if first is None:
        raise CellSegError(f"no {FILE_NAME} is given; name at least one")
    return SavedDetections(images, first.class_names)


def _joined(parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    """All values one after another, 1-D; none without parts."""
    return np.concatenate([np.zeros(0, dtype), *(part.ravel().astype(dtype) for part in parts)])


def _check_values(arrays: Mapping[str, np.ndarray], classes: int) -> None:
    """Refuse numbers that no detections have, which would else be taken for some of another image or class."""
    for name in ("names", "class_names"):
        if arrays[name].ndim != 1 or arrays[name].dtype.kind != "U":
            raise ValueError(f"its {name} are not texts")
    for name, lowest in (("counts", 0), ("mask_sizes", 0), ("shapes", 1), ("crop_boxes", 0), ("classes", 0)):
        values = arrays[name]
        if values.dtype.kind not in "iu" or (values < lowest).any():
            raise ValueError(f"its {name} are not whole numbers from {lowest} on")
    for name in ("boxes", "scores", "masks"):
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise ValueError(f"its {name} are not finite numbers")
    if (arrays["classes"] >= classes).any():
        raise ValueError(f"it has detections of a class beyond its {classes}")
    if len(arrays["shapes"]) and arrays["shapes"].astype(np.int64).prod(axis=1).max() > MAX_PIXELS:
        raise ValueError("it has images beyond any size")


def _images(arrays: Mapping[str, np.ndarray]) -> dict[str, Detections]:
    names, sizes = arrays["names"].tolist(), arrays["mask_sizes"].astype(np.int64)
    counts = arrays["counts"].astype(np.int64)
    total, soft, binary = counts.sum(), (counts * sizes**2).sum(), counts[sizes == 0].sum()
    crops = _unpacked(arrays["crop_boxes"].reshape(-1, 4), arrays["crop_bits"])
    lengths = [len(arrays[name]) for name in ("boxes", "scores", "classes")]
    if lengths != [total] * 3 or len(arrays["masks"]) != soft or len(crops) != binary or len(set(names)) != len(counts):
        raise ValueError("its arrays do not fit each other")
    images, start, mask_start, crop_start = {}, 0, 0, 0
    for name, (height, width), count, size in zip(
        names, arrays["shapes"].tolist(), counts.tolist(), sizes.tolist(), strict=True
    ):
        own = slice(start, start + count)
        if size:
            masks = arrays["masks"][mask_start : mask_start + count * size**2].astype(np.float32)
            masks = masks.reshape(count, size, size)
        else:
            masks = crops[crop_start : crop_start + count]
            crop_start += count
        images[name] = Detections(
            height, width, arrays["boxes"][own], arrays["scores"][own], arrays["classes"][own].astype(np.int64), masks
        )
        start, mask_start = start + count, mask_start + count * size**2
    return images


def _unpacked(boxes: np.ndarray, bits: np.ndarray) -> list[MaskCrop]:
    sides = boxes[:, 2:] - boxes[:, :2]
    ends = np.cumsum(sides.prod(axis=1, dtype=np.int64))
    if (sides < 0).any() or (len(ends) and ends[-1] > 8 * len(bits)):  # what lacks would be read as background
        raise ValueError("its binary masks are incomplete")
    pixels = np.unpackbits(bits, count=int(ends[-1]) if len(ends) else 0).astype(bool)
    masks = np.split(pixels, ends[:-1]) if len(ends) else []
    return [
        MaskCrop(top, left, mask.reshape(h, w))
        for mask, (left, top), (w, h) in zip(masks, boxes[:, :2].tolist(), sides.tolist(), strict=True)
    ]
