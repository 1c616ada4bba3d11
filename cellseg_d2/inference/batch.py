"""Many image files through a segmenter: a submission, overlay pictures, and a word about each file that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cellseg_d2.data.images import read_image
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.submission import write_submission
from cellseg_d2.inference.postprocess import Cells
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.masks import crop_to_kaggle
from cellseg_d2.visualization.overlays import overlay_picture, save_image


@dataclass
class BatchResult:
    """What :func:`segment_files` did.

    Attributes:
        counts: image id (file name without suffix) → class name → number of cells.
        failed: file → reason, for files that could not be read or segmented.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)


def segment_files(
    segmenter: Segmenter, paths: Sequence[Path], output: str | Path, *, overlays: bool = True
) -> BatchResult:
    """Segment files and write ``submission.csv`` and ``overlays/<id>.png`` to ``output``.

    A file that cannot be read does not stop the others; it is not in the submission.

    Raises:
        CellSegError: two files have the same name, so that their rows could not be told apart.
    """
    output = Path(output)
    stems: dict[str, Path] = {}
    for path in paths:
        if path.stem in stems:
            raise CellSegError(f"{stems[path.stem]} and {path} would share the image id {path.stem!r}; rename one")
        stems[path.stem] = path
    result, rows = BatchResult(), {}
    progress = tqdm(paths, desc="segmenting", unit="image")
    for path in progress:
        try:
            image = read_image(path)
            cells = segmenter.segment(image)
        except CellSegError as error:
            result.failed[path] = str(error)
            progress.write(f"skipped: {error}")
            continue
        rows[path.stem] = [crop_to_kaggle(crop, cells.width) for crop in cells.crops]
        result.counts[path.stem] = _count(cells, segmenter.class_names)
        if overlays:
            kinds = [segmenter.class_names[index] for index in cells.classes]
            picture = overlay_picture(image, cells.crops, kinds, title=path.stem)
            save_image(output / "overlays" / f"{path.stem}.png", picture)
    write_submission(output / "submission.csv", rows)
    return result


def _count(cells: Cells, class_names: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(cells.classes, minlength=len(class_names))
    return dict(zip(class_names, counts.tolist(), strict=False))
