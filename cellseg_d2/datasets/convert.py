"""Convert any source of annotated images to a folder of COCO JSON files with an audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tabulate import tabulate

from cellseg_d2 import __version__
from cellseg_d2.datasets.audit import Audit
from cellseg_d2.datasets.coco_json import EncodedImage, category_ids, encode_record, relative_root, write_coco_files
from cellseg_d2.datasets.findings import KINDS, FindingLog
from cellseg_d2.datasets.folds import split_groups
from cellseg_d2.datasets.readers import Source
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import atomic_set, write_json_atomic
from cellseg_d2.io.progress import track
from cellseg_d2.masks.ignore import outside_of

AUDIT_FILE = "audit.json"


@dataclass(eq=False)
class Dataset:
    """Images that were read and checked, ready to be written.

    Attributes:
        parts: encoded images by part; one part called ``""`` if the source is not split.
        categories: names, in the order of their ids.
        audit: what was found.
        source: the source that was read, or one of its parts.
        split: how :func:`split_dataset` split it.
    """

    parts: dict[str, list[EncodedImage]]
    categories: tuple[str, ...]
    audit: Audit
    source: Source
    split: dict = field(default_factory=dict)

    @property
    def folds(self) -> bool:
        """Whether the parts are pairs of folds."""
        return "folds" in self.split

    @property
    def mixed_images(self) -> int:
        """Number of images with cells of several categories."""
        images = (image for part in self.parts.values() for image in part)
        return len({i.entry["source_id"] for i in images if len({cell.category_id for cell in i.cells}) > 1})

    def table(self) -> str:
        """Images and cells of each type in each part; of folds only what is validated, the rest is trained on."""
        parts = {part: images for part, images in self.parts.items() if not (self.folds and part.endswith("_train"))}
        types = dict.fromkeys(image.entry.get("cell_type") for images in self.parts.values() for image in images)
        names = [*sorted(name for name in types if name is not None), *([None] if None in types else [])]
        rows = []
        for name in names:
            chosen = [[i for i in images if i.entry.get("cell_type") == name] for images in parts.values()]
            rows.append((name or "without cells", *_counts(chosen)))
        if len(rows) > 1:
            rows.append(("all", *_counts(parts.values())))
        headers = ["cell type", *(f"{part}\n{what}" for part in parts for what in ("images", "cells"))]
        return tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * (len(headers) - 1)))


def _counts(parts: Iterable[Sequence[EncodedImage]]) -> list[str]:
    return [text for images in parts for text in (f"{len(images):,}", f"{sum(len(i.cells) for i in images):,}")]


def read_dataset(
    sources: Mapping[str, Source],
    clean: bool = False,
    progress: bool = True,
    audit: Audit | None = None,
    partly: int | None = None,
) -> Dataset:
    """Read, check and encode all images, one at a time.

    Args:
        sources: by the name of the part; ``""`` for a source without parts of its own.
        clean: repair or drop what is wrong instead of leaving an open error.
        progress: show a bar.
        audit: the audit to use instead of a default one; its log says whether to clean.
        partly: if not None, only some cells of each image are annotated: everything else is ignored, except a ring of
            this many pixels around each of them (:func:`cellseg_d2.masks.ignore.outside_of`).

    Returns:
        The data set. When its ``audit.log`` has open errors it is not fit to be written.

    Raises:
        CellSegError: the parts have different categories, or an image to be dropped does not exist.
    """
    first = next(iter(sources.values()))
    categories = tuple(dict.fromkeys(name for source in sources.values() for name in source.categories))
    unknown = sorted(first.drop - {name for source in sources.values() for name in source.ids})
    if unknown:
        raise CellSegError(f"{first.path} has no image {unknown[0]!r}, which was asked to be dropped")
    numbers = category_ids(categories)
    audit = Audit(FindingLog(clean)) if audit is None else audit
    parts: dict[str, list[EncodedImage]] = {}
    with track(None, "converting", total=sum(map(len, sources.values())), shown=progress) as bar:
        done = 0
        for part, source in sources.items():
            parts[part] = []
            for record in source.records(audit.log):
                record = audit.check(record)
                if partly is not None:
                    crops = [cell.crop for cell in record.cells]
                    record = replace(record, ignore=outside_of(crops, record.height, record.width, partly))
                done += 1
                image_id = done if record.number is None else record.number
                parts[part].append(encode_record(record, image_id, numbers))
                bar.update()
        bar.update(bar.total - bar.n)
    return Dataset(parts, categories, audit, first)


def split_dataset(
    dataset: Dataset, val_fraction: float = 0.0, folds: int | None = None, seed: int = 0
) -> tuple[Dataset, str]:
    """Split an unsplit data set into ``train`` and ``val``, or into ``fold0_train``, ``fold0_val``, ``fold1_train`` …

    Images of one group (plate and well) stay together; every cell type is shared out evenly.

    Args:
        dataset: with the one part ``""``; one that has parts is returned as it is.
        val_fraction: the share of the images that goes to ``val``; 0 puts all into ``train``.
        folds: number of folds; each image is in the ``val`` of one of them.
        seed: decides between equally good splits.

    Returns:
        The data set in parts, and a sentence that says how it was split.

    Raises:
        CellSegError: there are not enough groups.
    """
    if "" not in dataset.parts:
        return dataset, "The source's own parts were kept."
    images = dataset.parts[""]
    if not images:
        raise CellSegError(f"{dataset.source.path}: no image is left to convert; see {AUDIT_FILE}")
    if folds is None and val_fraction == 0:
        return _with_parts(dataset, {"train": images}, {"method": "none"}), "All images were put into train."
    shares = [1 / folds] * folds if folds else [1 - val_fraction, val_fraction]
    groups = [image.entry.get("group") or ("image", image.entry["source_id"]) for image in images]
    try:
        chosen = split_groups(groups, [image.entry.get("cell_type") for image in images], shares, seed)
    except CellSegError as error:
        ways_out = "use fewer --folds, --val-fraction 0, or --tiles N, which cuts images into tiles"
        raise CellSegError(f"{dataset.source.path}: {error}; {ways_out}") from None
    parts = {}
    for fold in range(folds) if folds else [1]:
        prefix = f"fold{fold}_" if folds else ""
        parts[f"{prefix}train"] = [image for image, part in zip(images, chosen, strict=True) if part != fold]
        parts[f"{prefix}val"] = [image for image, part in zip(images, chosen, strict=True) if part == fold]
    grouped = dataset.source.has_groups
    how = f"grouped by plate and well ({len(set(groups))} groups)" if grouped else "image by image"
    said = f"Split {how}, stratified by cell type, seed {seed}."
    if not grouped:
        said += (
            "\nNothing says which images come from one plate and well (no column sample_id): such images look alike "
            "and may be\non both sides, which makes validation look better than it is."
        )
    # A type in fewer groups than there are parts cannot be in all of them.
    for name, own in _groups_of_types(images, groups).items():
        if len(own) < len(shares):
            said += f"\n{name} has only {len(own)} group{'s' if len(own) > 1 else ''} and is missing in some parts."
    split = {"method": how, "stratified_by": "cell_type", "seed": seed}
    split |= {"folds": folds} if folds else {"val_fraction": val_fraction}
    return _with_parts(dataset, parts, split), said


def _groups_of_types(images: Sequence[EncodedImage], groups: Sequence) -> dict[str, set]:
    result: dict[str, set] = {}
    for image, group in zip(images, groups, strict=True):
        if "cell_type" in image.entry:
            result.setdefault(image.entry["cell_type"], set()).add(group)
    return result


def _with_parts(dataset: Dataset, parts: dict[str, list[EncodedImage]], split: dict) -> Dataset:
    return Dataset(parts, dataset.categories, dataset.audit, dataset.source, split)


def write_dataset(dataset: Dataset, output: str | Path, command: str = "") -> list[Path]:
    """Write ``instances_<part>.json`` for each part and the audit.

    Args:
        dataset: without open errors.
        output: the folder; files of the same names are replaced, all others stay.
        command: noted in the files.

    Returns:
        The JSON files that were written.

    Raises:
        CellSegError: there are open errors; only the audit is written then, and the message names the first.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise CellSegError(f"{output} is a file; name a folder for the converted data set")
    log, source = dataset.audit.log, dataset.source
    if log.open_errors:
        write_audit(dataset, output, command)
        ways_out = []
        if any(error.kind == "missing image" for error in log.open_errors):
            ways_out.append("--allow-missing-images converts masks without images")
        if any(error.kind == "missing labels" for error in log.open_errors):
            ways_out.append("--only-labelled leaves images without labels out")
        if all(KINDS[error.kind].repairable for error in log.open_errors):
            ways_out.append("--clean repairs or drops them")
        hint = f", all are listed in {output / AUDIT_FILE}; nothing was converted"
        hint += f" ({', '.join(ways_out)})" if ways_out else ""
        log.raise_open_errors(source.path, hint)
    if not any(dataset.parts.values()):
        raise CellSegError(f"{source.path}: no image is left to convert")
    info = {
        "description": "Cell instances as compressed RLE",
        "converter": f"cellseg_d2 {__version__}",
        "source": str(source.path),
        "image_root": relative_root(source.images.root, output) if source.images else ".",
        "clean": log.clean,
        "images_of_several_types": dataset.mixed_images,
        "command": command,
        "split": dataset.split or {"method": "the source's own"},
    }
    files = {output / f"instances_{part}.json": (images, info) for part, images in dataset.parts.items()}
    with atomic_set():
        write_coco_files(files, dataset.categories)
        write_audit(dataset, output, command)
    return list(files)


def write_audit(dataset: Dataset, output: str | Path, command: str = "") -> None:
    """Write the audit of a data set into the folder ``output``."""
    parts = {
        part: {
            "images": len(images),
            "cells": sum(len(image.cells) for image in images),
            "images_per_type": dict(Counter(image.entry.get("cell_type") or "" for image in images)),
        }
        for part, images in dataset.parts.items()
        if part
    }
    content = {"source": str(dataset.source.path), "command": command, "parts": parts, **dataset.audit.to_dict()}
    write_json_atomic(Path(output) / AUDIT_FILE, content, indent=1)


def older_files(output: str | Path, written: Sequence[Path]) -> list[Path]:
    """Converted files in the folder that do not belong to what was just written."""
    return sorted(set(Path(output).glob("instances_*.json")) - set(written))
