"""Many image files through a segmenter: files in the formats asked for, and a word about each image that failed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import FORMATS, choose_formats
from cellseg_d2.export.submission import write_submission
from cellseg_d2.files import check_writable, write_text_atomic
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.label_runs import kaggle_from_labels

# Formats of which the whole batch goes into one file; all others have a folder with one file an image.
TOGETHER = {
    "submission": ("submission.csv", "the competition's file: one row a cell, masks share no pixel"),
    "csv": ("cells.csv", "measurements, one row a cell, of all images"),
}
SAVED = {**{name: text for name, (_, text) in TOGETHER.items()}}
SAVED |= {name: chosen.description for name, chosen in FORMATS.items() if name not in TOGETHER}
DEFAULT_SAVED = ("submission", "overlay")


@dataclass
class BatchResult:
    """What :func:`segment_files` did.

    Attributes:
        counts: image id (file name without suffix) → class name → number of cells.
        failed: file → reason, for files that could not be read or segmented.
        written: files and folders with results, in the order of the formats.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)


def segment_files(
    segmenter: Segmenter,
    paths: Sequence[Path],
    output: str | Path,
    saved: Collection[str] = DEFAULT_SAVED,
    **options,
) -> BatchResult:
    """Segment files and write the results to ``output``.

    A file that cannot be read or segmented does not stop the others; it is in none of the results.

    Args:
        segmenter: of one or several models.
        paths: of the images.
        output: folder, made where needed.
        saved: names out of :data:`SAVED`. ``submission`` and ``csv`` are one file for all images; of the others there
            is one in ``output/<format>`` for each image, whole or not at all.
        **options: passed on to :meth:`Segmenter.segment`.

    Raises:
        CellSegError: a format is not known, the folder cannot be written to, or two files have the same name, so that
            their results could not be told apart. Nothing is written then.
    """
    output = Path(output)
    unknown = [name for name in saved if name not in SAVED]
    if unknown:
        raise CellSegError(f"unknown format {', '.join(unknown)}; choose from {', '.join(SAVED)}")
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise CellSegError(f"{stems[path.stem]} and {path} would share the image id {path.stem!r}; rename one")
        stems[path.stem] = path
    check_writable(output)
    singles = choose_formats([name for name in saved if name not in TOGETHER])
    result, rows, tables = BatchResult(), {}, []
    progress = tqdm(paths, desc="segmenting", unit="image", disable=None if len(paths) > 1 else True)
    for path in progress:
        try:
            segmentation = segmenter.segment(path, **options)
        except (CellSegError, MemoryError, torch.OutOfMemoryError) as error:
            reason = str(error) if isinstance(error, CellSegError) else f"{path} does not fit into memory"
            reason = reason if str(path) in reason else f"{path}: {reason}"
            result.failed[path] = reason
            progress.write(f"skipped: {reason}")
            continue
        result.counts[path.stem] = segmentation.counts
        if "submission" in saved:
            rows[path.stem] = kaggle_from_labels(segmentation.labels, len(segmentation))
        if "csv" in saved:
            tables.append(segmentation.measure().assign(image=path.stem))
        for name in singles:
            segmentation.save(output / name, [name])
    if "submission" in saved:
        write_submission(output / TOGETHER["submission"][0], rows)
    if "csv" in saved:
        write_text_atomic(output / TOGETHER["csv"][0], _together(tables).to_csv(index=False))
    result.written = [output / (TOGETHER[name][0] if name in TOGETHER else name) for name in dict.fromkeys(saved)]
    return result


def _together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several images below each other, the image's name first. Images may lack columns that others have."""
    if not tables:
        return pd.DataFrame({"image": []})
    table = pd.concat(tables, ignore_index=True)
    return table[["image", *(column for column in table.columns if column != "image")]]
