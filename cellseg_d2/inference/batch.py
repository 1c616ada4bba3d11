"""Many image files through a segmenter: files in the formats asked for, and a word about each image that failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch
from detectron2.utils import comm

from cellseg_d2 import __version__
from cellseg_d2.datasets.coco_json import EncodedCell, EncodedImage, relative_root, write_coco_files
from cellseg_d2.datasets.names import distinct_names
from cellseg_d2.errors import CellSegError, printable, reason_of
from cellseg_d2.export.formats import (
    FORMATS,
    TOGETHER,
    Format,
    batch_formats,
    choose_formats,
    older_files,
    unknown_format,
)
from cellseg_d2.images.axes import PlaneChoice
from cellseg_d2.images.errors import check_name
from cellseg_d2.inference.items import Item, OpenStack, batch_items
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.inference.segmenter import Segmenter
from cellseg_d2.inference.unfinished import ImageResult, UnfinishedBatch, content_of, state_of, write_tables
from cellseg_d2.io.atomic import atomic_set, check_name_length, check_writable
from cellseg_d2.io.claim import claimed
from cellseg_d2.io.csv import csv_text, write_csv_table
from cellseg_d2.io.file_names import check_distinct, folder_stem
from cellseg_d2.io.folders import common_folder
from cellseg_d2.io.outputs import check_outputs
from cellseg_d2.io.progress import track
from cellseg_d2.masks.rle import kaggle_from_labels
from cellseg_d2.postprocess.params import FILE_NAME as POSTPROCESS
from cellseg_d2.predictions.submission import write_submission
from cellseg_d2.visualization.style import Style

T = TypeVar("T")

DEFAULT_SAVED = ("submission", "overlay")


@dataclass
class BatchResult:
    """What :func:`segment_files` did.

    Attributes:
        counts: key of the image (:class:`Item`) → class name → number of cells.
        failed: file → reason, for files that could not be read or segmented.
        written: files and folders with results, in the order of the formats.
        resumed: number of images that an earlier call had done; None where it left nothing to resume.
        older: files of an earlier call that are still in the folder, and are none of this one's results.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)
    resumed: int | None = None
    older: list[Path] = field(default_factory=list)


def segment_files(
    segmenter: Segmenter,
    paths: Sequence[Path],
    output: str | Path,
    saved: Collection[str] = DEFAULT_SAVED,
    *,
    resume: bool = False,
    folders: Mapping[Path, str] | None = None,
    ending: str | None = None,
    style: Style | None = None,
    **options,
) -> BatchResult:
    """Segment files and write the results to ``output``.

    A file that cannot be read or segmented does not stop the others; it is in none of the results.

    Processes that :func:`cellseg_d2.engine.launcher.launch_work` started share the images out; all must call this, and
    see the same folders. What is done is kept in a hidden folder of ``output`` until no image is left: when the call is
    killed, interrupted, or finds no room to write, it can be resumed. Files are the same, byte for byte, with any
    number of processes and interruptions; on the CPU, with equally many threads (``OMP_NUM_THREADS``) in each process,
    as PyTorch sums in another order with more of them.

    Args:
        segmenter: of one or several models.
        paths: of the images.
        output: folder, made where needed.
        saved: names out of :func:`batch_formats`. Those of :data:`cellseg_d2.export.formats.TOGETHER` are one file for
            all images; of the others there is one in ``output/<format>`` for each image, whole or not at all, and
            beside ``detections`` the post-processing that made cells of them.
        resume: do only what an unfinished call left to do, its failed images included.
        folders: sub-folder of ``output/<format>`` for the results of an image, "" by default, see
            :func:`cellseg_d2.datasets.find.find_inputs`. In files of all images, ids are names alone where these
            differ, and else names after their folders.
        ending: of the files' names, instead of the format's own such as ``_labels``.
        style: of pictures.
        **options: passed on to :meth:`Segmenter.segment`, but for ``keep_detections``, which ``saved`` decides. With
            ``stack`` each plane is an image of its own: its files are called by the file and its place in the stack,
            and tables have a column ``frame``.

    Returns:
        The same in all processes.

    Raises:
        CellSegError: a format is not known, two files have the same name, so that their results could not be told
            apart, an image would be written over, the folder cannot be written to or is written to by another process,
            or the unfinished call had other settings. Nothing is written then. Or there is no room left; what is done
            is kept.
    """
    output = Path(output)
    known = batch_formats()
    unknown = [name for name in saved if name not in known]
    if unknown:
        raise unknown_format(unknown, known)
    items = batch_items(paths, _choice(options, stack=options.pop("stack", False)), folders)
    named = [item.path.with_name(item.name + item.path.suffix) for item in items]
    check_distinct(named, folders=[item.folder for item in items])
    check_outputs(output_places(output, saved), paths)
    options["keep_detections"] = "detections" in saved
    with claimed(output) if comm.is_main_process() else nullcontext():
        return _segment_files(segmenter, items, Places(output, saved, ending, style or Style()), resume, options)


@dataclass(frozen=True)
class Places:
    """Where results go.

    Attributes:
        output: the folder of all.
        saved: names of the formats.
        ending: of the files' names; None is the format's own.
        style: of pictures.
    """

    output: Path
    saved: Collection[str]
    ending: str | None
    style: Style

    def files(self, key: str) -> list[tuple[Format, Path]]:
        """The formats with a file an image, and that of one image."""
        folder, _, image = key.rpartition("/")
        return [
            (chosen, chosen.path(self.output / name / folder_stem(folder), image, self.ending))
            for name, chosen in choose_formats([name for name in self.saved if name not in TOGETHER]).items()
        ]


def _choice(options: Mapping, stack: bool) -> PlaneChoice:
    """Which planes the options of :meth:`Segmenter.segment` want."""
    return PlaneChoice(stack=stack, **{name: options.get(name) for name in ("channel", "projection", "axes", "scene")})


def output_places(output: str | Path, saved: Collection[str]) -> list[Path]:
    """The files and folders in ``output`` that :func:`segment_files` writes."""
    return [Path(output) / (TOGETHER[name][0] if name in TOGETHER else name) for name in dict.fromkeys(saved)]


def _segment_files(
    segmenter: Segmenter, items: Sequence[Item], places: Places, resume: bool, options: dict
) -> BatchResult:
    output, saved = places.output, places.saved
    check_writable(output)
    parts, left, resumed = UnfinishedBatch(output), None, None
    if comm.is_main_process():
        settings = {
            "version": __version__,
            "torch": torch.__version__,
            "saved": sorted(set(saved)),
            "ending": places.ending,
            "style": asdict(places.style),
            "options": {name: value for name, value in options.items() if name != "progress"},
            "segmenter": segmenter.settings(),
        }
        found = parts.start(settings, resume)
        contents = cache(content_of)  # once for all planes of a stack
        left = [item for item in items if not (found and _is_done(parts, item, places, contents))]
        resumed = len(items) - len(left) if found else None
    left = _from_main_process(left)
    _segment_share(segmenter, left[comm.get_rank() :: comm.get_world_size()], parts, places, options)
    comm.synchronize()
    result = None
    if comm.is_main_process():
        with _room(output):
            with atomic_set():
                result = _finish(parts, items, saved)
                if "detections" in saved:  # what tuning begins with
                    made_with = "How cells were made of the detections beside this."
                    segmenter.params.to_yaml(output / "detections" / POSTPROCESS, made_with)
            if not result.failed:
                parts.remove()
        result.older = _older_files(places, result.counts)
        result.resumed = resumed
    return _from_main_process(result)


def _segment_share(
    segmenter: Segmenter, items: list[Item], parts: UnfinishedBatch, places: Places, options: dict
) -> None:
    """The images of this process."""
    processes, saved = comm.get_world_size(), places.saved
    doing = f"segmenting in process 1 of {processes}" if processes > 1 else "segmenting"
    progress = track(items, doing, each=True, shown=len(items) > 1 and comm.is_main_process())
    contents = cache(content_of)
    with closing(OpenStack(_choice(options, stack=True))) as opened:
        for item in progress:
            path = item.path
            state, content = state_of(path), contents(path)
            try:
                if item.failed is not None:
                    raise CellSegError(item.failed)
                check_name(path)
                for _, file in places.files(item.key):
                    check_name_length(file)
                own = {} if item.frame is None else {"frame": item.frame}
                segmentation = segmenter.segment(opened.image(item, state), **options, **own)
                segmentation = replace(segmentation, style=places.style)
            except (CellSegError, MemoryError) as error:
                reason = reason_of(error, path)
                shown = printable(path)
                reason = reason if shown in reason else f"{shown}: {printable(reason)}"
                progress.write(f"skipped: {reason}")
                progress.set_postfix_str("", refresh=False)
                with _room(parts.output):
                    parts.put(item, ImageResult(item.key, state, failed=reason, content=content))
                continue
            part = ImageResult(
                item.key,
                state,
                segmentation.counts,
                kaggle_from_labels(segmentation.labels, len(segmentation)) if "submission" in saved else [],
                _table(segmentation, item) if "csv" in saved else "",
                segmentation.encoded().cells if "coco" in saved else [],
                content=content,
                size=[segmentation.height, segmentation.width],
                covered=sum(crop.area for crop in segmentation.crops) / (segmentation.height * segmentation.width),
            )
            with _room(parts.output):
                for chosen, file in places.files(item.key):
                    chosen.write(file, segmentation)
                parts.put(item, part)  # last, as it says that all of this is there
            progress.set_postfix_str(f"{len(segmentation)} cells in {printable(item.key)}", refresh=False)


def _finish(parts: UnfinishedBatch, items: Sequence[Item], saved: Collection[str]) -> BatchResult:
    """Write the files of the whole batch from the results of its images, in the order of ``items``."""
    result = BatchResult()
    found = []
    for item in items:
        part = parts.get(item)
        if part is None:
            raise CellSegError(f"{item.path} or what was found in it has been changed or removed meanwhile")
        if part.failed is None:
            result.counts[part.key] = part.counts
            found.append(item)
        else:
            result.failed[item.path] = part.failed

    def done() -> Iterator[ImageResult]:
        return map(parts.get, found)

    ids = _ids(found)
    if "submission" in saved:
        write_submission(parts.output / TOGETHER["submission"][0], ((ids[part.key], part.rows) for part in done()))
    if "csv" in saved:
        write_tables(parts.output / TOGETHER["csv"][0], lambda: (part.table for part in done()))
    if "coco" in saved:
        _write_coco(parts.output / TOGETHER["coco"][0], found, parts, ids)
    if "images" in saved:
        write_csv_table(parts.output / TOGETHER["images"][0], _images_table(found, done()))
    result.written = output_places(parts.output, saved)
    return result


def _ids(items: Sequence[Item]) -> dict[str, str]:
    """What images are called where a file has no folders, by their keys."""
    keys = [item.key for item in items]
    return dict(zip(keys, distinct_names(keys), strict=True))


def _write_coco(path: Path, items: Sequence[Item], parts: UnfinishedBatch, ids: Mapping[str, str]) -> None:
    """One COCO JSON of all images, by their real names, relative to the folder that all of them are in."""
    root = common_folder(item.path.resolve().parent for item in items) if items else path.parent

    def encoded() -> Iterator[EncodedImage]:
        for number, item in enumerate(items, start=1):
            part = parts.get(item)
            name = item.path.resolve().relative_to(root).as_posix()
            sides = dict(zip(("height", "width"), part.size, strict=True))
            frame = {} if item.frame is None else {"frame": item.frame}
            entry = {"id": number, "file_name": name, **sides, "source_id": ids[item.key], **frame}
            yield EncodedImage(entry, [EncodedCell(*cell) for cell in part.coco])

    classes = list(parts.get(items[0]).counts) if items else []
    info = {"description": "Cells found by cellseg_d2", "image_root": relative_root(root, path.parent)}
    write_coco_files({path: (encoded(), info)}, classes)


def _images_table(items: Sequence[Item], parts: Iterable[ImageResult]) -> pd.DataFrame:
    """A row an image: its name and folder, its frame if it is of a stack, the number of its cells, its confluence (the
    share of its pixels that they cover), and, of several classes, the number of each.
    """
    parts = list(parts)
    table = pd.DataFrame({"image": [item.path.stem for item in items], "folder": [item.folder for item in items]})
    if any(item.frame is not None for item in items):
        table["frame"] = [item.frame for item in items]
    table["count"] = [sum(part.counts.values()) for part in parts]
    table["confluence"] = [part.covered for part in parts]
    classes = parts[0].counts if parts else {}
    for name in classes if len(classes) > 1 else ():
        column = f"{name} (class)" if name in table else name
        table[column] = [part.counts[name] for part in parts]
    return table


def _older_files(places: Places, keys: Collection[str]) -> list[Path]:
    """Files that an earlier call has left where results are, and this one has not written."""
    written = {file for key in keys for _, file in places.files(key)}
    together = [places.output / file for name, (file, _) in TOGETHER.items() if name not in places.saved]
    return sorted([*older_files(places.output, FORMATS, written), *filter(Path.exists, together)])


def _is_done(parts: UnfinishedBatch, item: Item, places: Places, contents: Callable[[Path], str]) -> bool:
    """Whether there is nothing left to do of an image; one that failed is tried again."""
    part = parts.get(item)
    if part is None or part.failed is not None or part.content != contents(item.path):
        return False
    return all(file.is_file() for _, file in places.files(item.key))


def _table(segmentation: Segmentation, item: Item) -> str:
    """Measurements as CSV, the image's name and folder first."""
    table = segmentation.measure()
    table.insert(0, "image", item.path.stem)
    table.insert(1, "folder", item.folder)
    return csv_text(table)


@contextmanager
def _room(output: Path) -> Iterator[None]:
    """Says in a sentence that results cannot be written, and how to go on."""
    try:
        yield
    except (OSError, CellSegError) as error:
        told = isinstance(error, CellSegError)
        reason = str(error) if told else f"results cannot be written to {output} ({error.strerror or error})"
        raise CellSegError(
            f"{reason}; the images done so far are kept: mend that, and give the same call again with --resume"
        ) from None


def _from_main_process(value: T | None) -> T:
    """What the main process has, in all processes; waits for them."""
    return comm.all_gather(value)[0]
