"""Open annotated cells in any format that this project reads or writes; the format is detected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cellseg_d2.datasets.coco_file import CocoFile, read_coco_or_json
from cellseg_d2.datasets.label_pairs import LABEL_SUFFIXES, has_label_ending, holds_images_too
from cellseg_d2.datasets.names import files_within
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import DrawnSource
from cellseg_d2.errors import CellSegError

_BY_SUFFIX = {".xml": "cvat", ".geojson": "geojson", ".zip": "rois", ".roi": "rois", ".csv": "csv", ".gz": "csv"}
_BY_SUFFIX |= dict.fromkeys(LABEL_SUFFIXES, "labels")
# What `infer` writes into its folder that holds masks, and StarDist's name; the first that exists is read.
_RESULTS = ("coco.json", "labels", "masks", "geojson", "rois")


def format_of(path: str | Path) -> str:
    """Detect the format of a file, or of the files in a folder and its sub-folders: a name in :data:`DATASET_READERS`.

    Raises:
        CellSegError: the format is unknown, or the folder holds several formats.
    """
    path = Path(path)
    if not path.exists():
        raise CellSegError(f"{path} does not exist")
    if path.is_dir():
        files = [file for file in files_within(path, True) if file.suffix.lower() in (*_BY_SUFFIX, ".json")]
        formats = {file: _format_of_file(file) for file in files}
        kinds = {name: file for file, name in formats.items()}
        if len(kinds) > 1 and not any(name == "labels" and has_label_ending(file) for file, name in formats.items()):
            kinds.pop("labels", None)  # the images, beside which most tools write
        if len(kinds) > 1:
            shown = ", ".join(f"{file.name} ({kind})" for kind, file in kinds.items())
            raise CellSegError(f"{path} holds annotations of several kinds, such as {shown}: name a folder with one")
        if not kinds:
            raise CellSegError(f"{path} holds no annotations of a kind that is known ({', '.join(DATASET_READERS)})")
        return next(iter(kinds))
    return _format_of_file(path)


def _format_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix != ".json":
        if suffix == ".npz":
            raise CellSegError(
                f"{path} holds detections before any threshold, which are not cells yet: see tune-postprocess"
            )
        if suffix not in _BY_SUFFIX:
            raise CellSegError(f"{path} is of no kind of annotations that is known ({', '.join(DATASET_READERS)})")
        return _BY_SUFFIX[suffix]
    content = read_coco_or_json(path)
    if isinstance(content, CocoFile):
        return "coco"
    if isinstance(content, Mapping):
        for key, name in (("shapes", "labelme"), ("features", "geojson")):
            if key in content:
                return name
        regions = [isinstance(entry, Mapping) and "regions" in entry for entry in content.values()]
        if "_via_img_metadata" in content or (regions and all(regions)):
            return "via"
    elif isinstance(content, list) and content and all(isinstance(e, Mapping) and "geometry" in e for e in content):
        return "geojson"
    raise CellSegError(
        f"{path} is not a COCO JSON: it needs images, annotations and categories; nor is it one of labelme, VIA or "
        "QuPath"
    )


def place_of(path: str | Path) -> Path:
    """What :func:`open_annotations` reads: the cells in a folder of ``cellseg-d2 infer``, else ``path``."""
    path = Path(path)
    if path.is_dir():
        return next((path / name for name in _RESULTS if (path / name).exists()), path)
    return path


def open_annotations(
    path: str | Path, options: ReaderOptions | None = None, sizes: Mapping[str, tuple[int, int]] | None = None
) -> list[Source]:
    """Open annotations of any format; images need not be there.

    Args:
        path: a file, a folder of files of one kind, or the folder that ``cellseg-d2 infer`` has written.
        options: options of the reader.
        sizes: ``(height, width)`` in pixels by image name, for formats that do not contain them, such as GeoJSON.

    Returns:
        One source, or several where images have a COCO JSON each.

    Raises:
        CellSegError: the format is unknown, or the file cannot be read.
    """
    path = place_of(path)
    options = replace(options or ReaderOptions(), allow_missing=True, recursive=True)
    name = format_of(path)
    if name == "labels" and options.images is None and holds_images_too(path):
        options = replace(options, images=path)
    if name == "labels" and options.images is None:
        from cellseg_d2.datasets.label_images import LabelImages, LabelRules

        components = "lone" if options.components == "check" else options.components
        rules = LabelRules(options.background, components)
        return [LabelImages(None, path, options.category, options.drop, rules=rules)]
    if name == "csv":
        from cellseg_d2.datasets.sartorius import SartoriusCsv

        return [SartoriusCsv(path, options.image_folder(), None, options.drop, category=options.category)]
    files = [path]
    if name == "coco" and path.is_dir():
        files = [file for file in files_within(path, True) if file.suffix.lower() == ".json"]
    sources = [source for file in files for source in DATASET_READERS[name](file, options).values()]
    for source in sources:
        if sizes is not None and isinstance(source, DrawnSource):
            source.give_sizes(sizes)
    return sources
