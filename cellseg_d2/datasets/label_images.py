"""Images with label images: 0 is background, every other number one cell."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage import measure

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.label_pairs import lone_labels, pair_labels
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import first_line
from cellseg_d2.images.errors import ImageError, check_claim, check_file
from cellseg_d2.images.read import read_label_plane
from cellseg_d2.io.array_pickle import parse_array_pickle
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.masks.overlaps import crops_from_labels

# Label images of cells are in hardly more pieces than numbers; photographs and masks of classes are in many more.
_SCATTERED = 5
_SCATTERED_PIECES = 50


@dataclass(frozen=True)
class LabelRules:
    """What the numbers of label images mean.

    Attributes:
        background: the number of the background besides 0; None means 0 alone, and refuses a number that must be the
            background.
        components: what pieces of one number that do not touch (8-connected) are: ``"split"`` makes each a cell,
            ``"keep"`` one cell of them. ``"check"`` keeps them too, but refuses an image in which they say that numbers
            are not cells; ``"lone"`` refuses only what no result of this project can be, which counts cells from 1 on.
    """

    background: int | None = None
    components: str = "check"


def read_label_image(path: str | Path) -> np.ndarray:
    """Read a label image: 8-, 16- or 32-bit PNG, TIFF or BMP; NumPy's ``.npy``, also Cellpose's ``_seg.npy``.

    Floats are read if they are whole numbers. Code in a pickled ``.npy`` is never run.

    Returns:
        ``(H, W)``, an integer dtype, without negative values.

    Raises:
        ImageError: the file cannot be read, has colours or several planes, or other values than labels.
    """
    path = Path(path)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise ImageError(f"{path} is a JPEG, whose compression changes labels; save label images as PNG or TIFF")
    labels = _read_npy(path) if path.suffix.lower() == ".npy" else read_label_plane(path)
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype.kind not in "uif":
        raise ImageError(f"{path} holds values of type {labels.dtype}; save it as 16- or 32-bit integers")
    if np.issubdtype(labels.dtype, np.floating):
        # Beyond 2^24 neighbouring whole numbers are the same float32, so that labels could have merged.
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any() or np.abs(labels).max(initial=0) > 2**24:
            raise ImageError(f"{path} holds fractions or numbers too large for labels; save it with 16 or 32 bits")
        labels = labels.astype(np.int64)
    if labels.size and labels.min() < 0:
        raise ImageError(f"{path} holds negative labels ({labels.min()}); 0 is background, cells are 1, 2, 3 …")
    return labels


def _read_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy``, or the ``masks`` in one that Cellpose has written."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError("a version that no label image has")
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            if dtype.hasobject:
                content = parse_array_pickle(file.read(), objects=True)
                found = content[0] if isinstance(content, list) and len(content) == 1 else None
                labels = found.get("masks") if isinstance(found, dict) else None
                if not isinstance(labels, np.ndarray):
                    raise ImageError(f"{path} holds no 'masks', as the files of Cellpose that end in _seg.npy do")
            else:
                pixels = int(np.prod([int(side) for side in shape], dtype=object))
                check_claim(path, shape, pixels, path.stat().st_size)
                file.seek(0)
                labels = np.load(file, allow_pickle=False)
    except (ImageError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ImageError(f"{path} holds more than arrays, numbers and texts ({first_line(error)})") from None
    except Exception as error:  # almost any, of a damaged file
        raise ImageError(f"{path} cannot be read, it seems damaged or truncated ({first_line(error)})") from None
    if labels.ndim != 2:
        raise ImageError(f"{path} has the shape {labels.shape}; label images are planes of height and width")
    return labels


def cells_of_labels(labels: np.ndarray, rules: LabelRules) -> tuple[list[tuple[int, MaskCrop]], tuple[str, str] | None]:
    """The cells of a label image, or the reason why it is not one.

    Args:
        labels: ``(H, W)`` integers, as :func:`read_label_image` returns them.
        rules: what the numbers mean.

    Returns:
        For each cell its number (where pieces were split, one from 1 on) and its mask; and the kind and the reason of
        a finding, with which there are no cells.
    """
    if rules.background:
        labels = np.where(labels == rules.background, 0, labels)
    numbers, counts = np.unique(labels, return_counts=True)
    numbers, counts = numbers[numbers > 0], counts[numbers > 0]
    if len(numbers) == 0:
        return [], None
    largest = int(counts.argmax())
    edges = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    if rules.background is None and 2 * counts[largest] > labels.size:
        number = numbers[largest]
        if all((edge == number).any() for edge in edges):
            share = 100 * counts[largest] / labels.size
            return [], (
                "background with a number",
                f"{number} covers {share:.0f} % of the image and reaches all its borders, so it seems to be the "
                f"background: --background {number} takes it as such, --background 0 as a cell",
            )
    if rules.components != "keep":
        pieces, count = measure.label(labels, background=0, return_num=True, connectivity=2)
        if rules.components == "split":
            labels, numbers = pieces, np.arange(1, count + 1)
        elif rules.components == "lone" and numbers.tolist() == [255]:
            return [], (
                "binary mask",
                "255 is its only number, as in a binary mask, or in the mask of one cell of several, which is read "
                "where --images names the images: --split-components makes each piece a cell, --keep-components takes "
                "all for one cell",
            )
        elif len(numbers) == 1 and count > (_SCATTERED if rules.components == "lone" and numbers[0] == 1 else 1):
            return [], (
                "binary mask",
                f"{numbers[0]} is its only number, in {count} pieces that do not touch; every cell needs a number of "
                "its own: --split-components makes each piece a cell, --keep-components takes all for one cell",
            )
        elif count > _SCATTERED * len(numbers) + _SCATTERED_PIECES:
            return [], (
                "numbers that are not cells",
                f"its {len(numbers)} numbers are in {count} pieces, as in a photograph or a mask of classes; every "
                "cell needs a number of its own: --split-components makes each piece a cell, --keep-components takes "
                "the numbers as they are",
            )
    return list(zip(numbers.tolist(), crops_from_labels(labels), strict=True)), None


class LabelImages:
    """Images and their label images; see :func:`cellseg_d2.datasets.label_pairs.pair_labels` for how they are found.

    Attributes:
        images: the folder of the images.
        path: the folder of labels.
        categories: the one category.
        ids: names of the images, sorted, and of label images without one.
        has_groups: False; label images have no groups.

    Args:
        images: the folder of images; None reads label images alone.
        labels: the folder of label images, which may be the same; without images, also one of them.
        category: name of all cells' category.
        drop: names of images to leave out.
        allow_missing: keep label images whose image has no file.
        only_labelled: leave out images without a label image, with a message; otherwise they are errors.
        ending, recursive: see :func:`cellseg_d2.datasets.label_pairs.pair_labels`.
        rules: what the numbers mean.
    """

    has_groups = False

    def __init__(
        self,
        images: str | Path | None,
        labels: str | Path,
        category: str = "cell",
        drop: tuple[str, ...] = (),
        *,
        allow_missing: bool = False,
        only_labelled: bool = False,
        ending: str | None = None,
        rules: LabelRules | None = None,
        recursive: bool = False,
    ):
        pairs = None if images is None else pair_labels(images, labels, ending, allow_missing, recursive)
        self._pairs = pairs or lone_labels(labels)
        self.images = self._pairs.images
        self.path = Path(labels)
        self.categories = (category,)
        self.ids = sorted({*self.images.files, *self._pairs.labels, *self._pairs.unpaired})
        self.drop = set(drop)
        self._only_labelled = only_labelled
        self._rules = rules or LabelRules()

    def __len__(self) -> int:
        return len(self.ids)

    def records(self, log: FindingLog) -> Iterator[ImageRecord]:
        """Read image by image; a cell's ``row`` is its label, or the place of its file among the image's masks.

        Args:
            log: see :meth:`cellseg_d2.datasets.sartorius.SartoriusCsv.records`.
        """
        for name in self.ids:
            if name in self.drop:
                log.note("left out", name, None, "asked to be dropped", action="image dropped")
                continue
            record = self._read(name, log)
            if record is not None:
                yield record

    def _read(self, name: str, log: FindingLog) -> ImageRecord | None:
        files = self._pairs.labels.get(name) or self._pairs.unpaired.get(name, [])
        masks = self._pairs.masks.get(name, [])
        if not files and not masks:
            reason = f"no label image called {name} in {self.path}"
            done = "image left out" if self._only_labelled else ""
            log.note("missing labels", name, None, reason, repair="image dropped", action=done)
            return None
        try:
            shape, cells = self._read_masks(name, masks, log) if masks else self._read_labels(name, files, log)
        except ImageError as error:
            log.note("unreadable image", name, None, str(error), repair="image dropped")
            return None
        if cells is None:
            return None
        found = self.images.look_up(name, {shape}, log)
        if found is None:
            return None
        category = self.categories[0]
        own = [CellAnnotation(crop, category, number) for number, crop in cells]
        return ImageRecord(name, found[0], *shape, category if own else None, None, own)

    def _read_labels(
        self, name: str, files: Sequence[Path], log: FindingLog
    ) -> tuple[tuple[int, int], list[tuple[int, MaskCrop]] | None]:
        labels = read_label_image(files[0])
        for other in files[1:]:
            if not np.array_equal(labels, read_label_image(other)):
                reason = f"{files[0].name} and {other.name} differ; choose with --label-ending, such as _masks"
                log.note("several label images", name, None, reason)
                return labels.shape, None
        cells, problem = cells_of_labels(labels, self._rules)
        if problem is not None:
            log.note(problem[0], name, None, f"{files[0].name}: {problem[1]}")
            return labels.shape, None
        return labels.shape, cells

    def _read_masks(
        self, name: str, files: Sequence[Path], log: FindingLog
    ) -> tuple[tuple[int, int], list[tuple[int, MaskCrop]] | None]:
        shape, cells = None, []
        for number, path in enumerate(files, start=1):
            mask = read_label_image(path)
            shape = shape or mask.shape
            if mask.shape != shape:
                reason = f"{path.name} has {mask.shape[1]} × {mask.shape[0]} pixels, {files[0].name} has others"
                log.note("wrong size", name, number, reason, repair="image dropped")
                return shape, None
            if len(np.unique(mask[mask > 0])) > 1:
                reason = f"{path.name} holds several numbers, so it is not the mask of one cell"
                log.note("malformed mask", name, number, reason, repair="image dropped")
                return shape, None
            crop = MaskCrop.from_full(mask > 0)
            if crop.area == 0:
                log.note("empty mask", name, number, f"{path.name} has no pixel above 0", repair="mask dropped")
                continue
            cells.append((number, crop))
        assert shape is not None
        return shape, cells


@DATASET_READERS.register("labels", metavar="DIR")
def open_labels(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """label images, 8, 16 or 32 bits, named as their images, also with _masks, _labels …; or a mask a cell"""
    rules = LabelRules(options.background, options.components)
    source = LabelImages(
        options.images or path,
        path,
        options.category,
        options.drop,
        allow_missing=options.allow_missing,
        only_labelled=options.only_labelled,
        ending=options.label_ending,
        rules=rules,
        recursive=options.recursive,
    )
    return {"": source}
