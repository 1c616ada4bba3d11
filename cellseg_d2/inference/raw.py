"""Raw detections of many images in one file, before any threshold: what post-processing is tuned on."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellseg_d2.errors import CellSegError
from cellseg_d2.files import atomic_path
from cellseg_d2.inference.detections import Detections
from cellseg_d2.masks import MaskCrop

FILE_NAME = "detections.npz"
_FORMAT = "cellseg_d2 detections 1"
# What NumPy raises for a file that is cut, overwritten, or of another kind.
_DAMAGE = (OSError, ValueError, LookupError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False)
class RawDetections:
    """What :func:`load_raw` returns.

    Attributes:
        images: detections by image name.
        class_names: of the model that made them, in the order of its class numbers.
    """

    images: dict[str, Detections]
    class_names: list[str]


def save_raw(path: str | Path, images: Mapping[str, Detections], class_names: Sequence[str]) -> None:
    """Write the detections of many images to an ``.npz``, whole or not at all.

    The arrays, of ``I`` images with ``N`` detections in all: ``names`` ``(I,)``, ``shapes`` int32 ``(I, 2)`` (height,
    width), ``counts`` int32 ``(I,)``, ``mask_sizes`` int32 ``(I,)`` (``M``, or 0 for binary masks), ``boxes`` float32
    ``(N, 4)``, ``scores`` float32 ``(N,)``, ``classes`` int32 ``(N,)``, ``masks`` float16, the M × M grids one after
    another; for binary masks ``crop_boxes`` int32 ``(K, 4)`` and ``crop_bits`` uint8, their pixels packed.

    Args:
        path: of the file.
        images: by name. Probabilities are kept as float16, that is to 0.0005.
        class_names: of the model.
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
        np.savez_compressed(temporary, **arrays)


def load_raw(path: str | Path) -> RawDetections:
    """Read a file of :func:`save_raw`. Nothing in it is executed: no pickle is accepted.

    Raises:
        CellSegError: the file is missing, damaged, or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays["format"]) != _FORMAT:
            raise ValueError(f"its format is {str(arrays['format'])[:40]!r}, not {_FORMAT!r}")
        return RawDetections(_images(arrays), arrays["class_names"].tolist())
    except FileNotFoundError:
        raise CellSegError(f"there is no file of detections {str(path)!r}") from None
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CellSegError(
            f"{path} is no {FILE_NAME} as training and evaluation write it with TEST.SAVE_DETECTIONS True ({reason})"
        ) from None


def load_many(paths: Sequence[str | Path]) -> RawDetections:
    """Read several files, such as those of the folds of a cross-validation, as one.

    Raises:
        CellSegError: see :func:`load_raw`; or the classes differ, or an image is in two files.
    """
    images: dict[str, Detections] = {}
    first = None
    for path in paths:
        raw = load_raw(path)
        first = first or raw
        if raw.class_names != first.class_names:
            raise CellSegError(
                f"{path} is of a model with the classes {', '.join(raw.class_names)}, but {paths[0]} of one with "
                f"{', '.join(first.class_names)}"
            )
        if shared := images.keys() & raw.images.keys():
            raise CellSegError(f"image {min(shared)!r} is in {path} and in a file before it; each may be given once")
        images.update(raw.images)
    return RawDetections(images, first.class_names)


def _joined(parts: Iterable[np.ndarray], dtype: type) -> np.ndarray:
    """All values one after another, 1-D; none without parts."""
    return np.concatenate([np.zeros(0, dtype), *(part.ravel().astype(dtype) for part in parts)])


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
    pixels = np.unpackbits(bits, count=int(ends[-1]) if len(ends) else 0).astype(bool)
    masks = np.split(pixels, ends[:-1]) if len(ends) else []
    return [
        MaskCrop(top, left, mask.reshape(h, w))
        for mask, (left, top), (w, h) in zip(masks, boxes[:, :2].tolist(), sides.tolist(), strict=True)
    ]
