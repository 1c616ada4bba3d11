"""Pair label images with their images, however tools name and place them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.names import distinct_names, files_within, key_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.other_tools import LABEL_ENDINGS, OTHER_ENDINGS
from cellseg_d2.images.read import IMAGE_SUFFIXES

# Endings of images after the common name: those of Cellpose's own data, and what OME-TIFF has before its suffix.
IMAGE_ENDINGS = ("_img", "_image", ".ome")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")


@dataclass(frozen=True, eq=False)
class LabelPairs:
    """Images and their label files.

    Attributes:
        images: the folder of the images, without the label images that lie in it.
        labels: by the image's name, the files that are said to be its label image, usually one.
        masks: by the image's name, files that show one cell each, where images have folders of such.
        unpaired: by their own names, label files that belong to no image.
    """

    images: ImageFolder
    labels: dict[str, list[Path]]
    masks: dict[str, list[Path]]
    unpaired: dict[str, list[Path]]


def pair_labels(
    images: str | Path,
    labels: str | Path,
    ending: str | None = None,
    allow_missing: bool = False,
    recursive: bool = False,
) -> LabelPairs:
    """Find label images.

    A label image has the name of its image, or that name and one of
    :data:`~cellseg_d2.images.other_tools.LABEL_ENDINGS`; it may lie in a folder of labels or beside its image, where it
    needs an ending. Instead of it an image ``a.png`` may have a folder ``a`` of masks
    with one cell each; ``images`` and ``labels`` may both be a folder of folders ``a/images/*`` and ``a/masks/*``, as
    of the Data Science Bowl 2018.

    Args:
        images: the folder of the images.
        labels: the folder of the label images, which may be the same.
        ending: the only one that is looked for, ``""`` for none.
        allow_missing: keep label images without an image.
        recursive: enter sub-folders; a label image is then in the sub-folder of the same name as its image.

    Raises:
        CellSegError: there is no folder, or nothing in it is a label image.
    """
    images, labels = Path(images), Path(labels)
    if not labels.is_dir():
        raise CellSegError(f"the folder of labels {labels} {'is a file' if labels.exists() else 'does not exist'}")
    if _is_folder_of_samples(labels):
        return _pair_samples(images, labels, allow_missing)
    endings = LABEL_ENDINGS if ending is None else (ending,)
    files = _label_files(labels, recursive)
    one_folder = images.resolve() == labels.resolve()
    if one_folder:
        known = _by_common_name({key: key for path, key in files.items() if path.suffix.lower() in IMAGE_SUFFIXES})
        own = {
            path
            for path, key in files.items()
            if _image_of(key, known, (*endings, *LABEL_ENDINGS, *OTHER_ENDINGS)) is not None
        }
        files = {path: key for path, key in files.items() if _image_of(key, known, endings) is not None}
        if not files:
            raise CellSegError(
                f"{labels} holds images, but none beside them that is named as their label image, such as "
                f"a_masks.tif or a_labels.png beside a.tif: name the folder of the images with --images, and that of "
                "the label images with --labels"
            )
        folder = ImageFolder(images, allow_missing, recursive, keep=lambda path: path not in own)
    else:
        folder = ImageFolder(images, allow_missing, recursive, keep=lambda path: labels not in path.parents)
    places = {key_of(Path(file)): name for name, file in folder.files.items()}
    masks = {} if one_folder else {name: own for key, name in places.items() if (own := _mask_files(labels / key))}
    of_one_cell = {path for own in masks.values() for path in own}
    known = _by_common_name(places)
    found: dict[str, list[Path]] = {}
    unpaired: dict[str, list[Path]] = {}
    for path, key in files.items():
        image = _image_of(key, known, endings if one_folder else ("", *endings))
        if image is not None:
            found.setdefault(image, []).append(path)
        elif path not in of_one_cell and (ending is None or path.stem.endswith(ending)):
            unpaired.setdefault(key, []).append(path)
    if not files and not masks:
        deeper = "" if recursive or not _label_files(labels, True) else ", but its sub-folders do: --recursive"
        raise CellSegError(f"the folder of labels {labels} holds no label image ({' '.join(LABEL_SUFFIXES)}){deeper}")
    if not found and not masks and folder.files and not allow_missing:
        raise CellSegError(
            f"no image in {images} has the name of a label image in {labels}: {next(iter(folder.files.values()))} "
            f"against {next(iter(files)).name} (what may follow the image's name: {' '.join(LABEL_ENDINGS)})"
        )
    return LabelPairs(folder, found, masks, unpaired)


def lone_labels(path: str | Path) -> LabelPairs:
    """The label images that a path names, one or those in a folder and its sub-folders, each called as its image would
    be, see :func:`cellseg_d2.datasets.names.distinct_names`.

    Raises:
        CellSegError: there is none.
    """
    path = Path(path)
    if not path.exists():
        raise CellSegError(f"{path} does not exist")
    labels: dict[str, list[Path]] = {}
    for file, key in ({path: path.stem} if path.is_file() else _label_files(path, True)).items():
        ending = next((ending for ending in LABEL_ENDINGS if file.stem.endswith(ending) and file.stem != ending), "")
        labels.setdefault(key.removesuffix(ending), []).append(file)
    if not labels:
        raise CellSegError(f"{path} holds no label image")
    root = path if path.is_dir() else path.parent
    named = dict(zip(distinct_names(list(labels)), labels.values(), strict=True))
    return LabelPairs(ImageFolder.of_names(root, {}, allow_missing=True), named, {}, {})


def holds_images_too(path: Path) -> bool:
    """Whether images are in a folder of label images, too, as Cellpose and the Data Science Bowl place them."""
    if not path.is_dir():
        return False
    files = _label_files(path, True)
    images = {key for file, key in files.items() if file.suffix.lower() in IMAGE_SUFFIXES}
    known = _by_common_name(dict.fromkeys(images, ""))
    return _is_folder_of_samples(path) or any(
        _image_of(key, known, LABEL_ENDINGS) is not None for key in files.values()
    )


def has_label_ending(path: Path) -> bool:
    """Whether a file is called as tools call label images."""
    return path.stem.endswith(LABEL_ENDINGS)


def _label_files(folder: Path, recursive: bool) -> dict[Path, str]:
    """The files that may be label images, each with its path without suffix."""
    files = files_within(folder, recursive)
    return {path: key_of(path.relative_to(folder)) for path in files if path.suffix.lower() in LABEL_SUFFIXES}


def _by_common_name(places: Mapping[str, str]) -> dict[str, str]:
    """The names of images by what the paths of their label images may begin with."""
    known = dict(sorted(places.items()))
    for key, name in list(known.items()):
        for ending in IMAGE_ENDINGS:
            if key.endswith(ending) and len(key.rpartition("/")[2]) > len(ending):
                known.setdefault(key.removesuffix(ending), name)
    return known


def _image_of(key: str, known: Mapping[str, str], endings: Sequence[str]) -> str | None:
    """The name of the image to which the label file at a path without suffix belongs; None if there is none."""
    for ending in endings:
        if key.endswith(ending) and (name := key.removesuffix(ending)) in known:
            return known[name]
    return None


def _mask_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _is_folder_of_samples(folder: Path) -> bool:
    samples = [path for path in folder.iterdir() if path.is_dir()]
    found = [path for path in samples if (path / "images").is_dir() and (path / "masks").is_dir()]
    # Where there are several images, the masks are label images, as in StarDist's train/images and train/masks.
    return any(len(_mask_files(path / "images")) == 1 for path in found)


def _pair_samples(images: Path, labels: Path, allow_missing: bool) -> LabelPairs:
    folder = ImageFolder(images, allow_missing, recursive=True, keep=lambda path: path.parent.name == "images")
    masks = {}
    for stem, name in folder.files.items():
        sample = labels / Path(name).parent.parent.relative_to(".")
        if own := _mask_files(sample / "masks"):
            masks[stem] = own
    return LabelPairs(folder, {}, masks, {})
