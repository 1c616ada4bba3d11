"""Pair label images with their images, however tools name and place them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import IMAGE_SUFFIXES

# Endings of label images after the name of their image: those of Cellpose, this project and other tools.
ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "_seg")
# Endings of images after the common name: those of Cellpose's own data.
IMAGE_ENDINGS = ("_img", "_image")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")


@dataclass(frozen=True, eq=False)
class LabelPairs:
    """Images and their label files.

    Attributes:
        images: the folder of the images, without the label images that lie in it.
        labels: by the image's stem, the files that are said to be its label image, usually one.
        masks: by the image's stem, files that show one cell each, where images have folders of such.
        unpaired: label files that belong to no image.
    """

    images: ImageFolder
    labels: dict[str, list[Path]]
    masks: dict[str, list[Path]]
    unpaired: list[Path]


def pair_labels(
    images: str | Path, labels: str | Path, ending: str | None = None, allow_missing: bool = False
) -> LabelPairs:
    """Find label images.

    A label image has the name of its image, or that name and one of :data:`ENDINGS`; it may lie in a folder of labels
    or beside its image, where it needs an ending. Instead of it an image ``a.png`` may have a folder ``a`` of masks
    with one cell each; ``images`` and ``labels`` may both be a folder of folders ``a/images/*`` and ``a/masks/*``, as
    of the Data Science Bowl 2018.

    Args:
        images: the folder of the images.
        labels: the folder of the label images, which may be the same.
        ending: the only one that is looked for, ``""`` for none.
        allow_missing: keep label images without an image.

    Raises:
        CellSegError: there is no folder, or nothing in it is a label image.
    """
    images, labels = Path(images), Path(labels)
    if not labels.is_dir():
        raise CellSegError(f"the folder of labels {labels} {'is a file' if labels.exists() else 'does not exist'}")
    if _is_folder_of_samples(labels):
        return _pair_samples(images, labels, allow_missing)
    endings = ENDINGS if ending is None else (ending,)
    files = sorted(p for p in labels.iterdir() if _is_label_name(p))
    one_folder = images.resolve() == labels.resolve()
    if one_folder:
        stems = {path.stem for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
        known = _by_common_name(stems)
        own = {path for path in files if _image_of(path, known, (*endings, *ENDINGS)) is not None}
        files = [path for path in files if _image_of(path, known, endings) is not None]
        if not files:
            raise CellSegError(
                f"{labels} holds images, but none beside them that is named as their label image, such as "
                f"a_masks.tif or a_labels.png beside a.tif: name the folder of the images with --images, and that of "
                "the label images with --labels"
            )
        folder = ImageFolder(images, allow_missing, keep=lambda path: path not in own)
    else:
        folder = ImageFolder(images, allow_missing)
    known = _by_common_name(folder.files)
    found: dict[str, list[Path]] = {}
    unpaired = []
    for path in files:
        image = _image_of(path, known, endings if one_folder else ("", *endings))
        if image is None:
            if ending is None or path.stem.endswith(ending):
                unpaired.append(path)
        else:
            found.setdefault(image, []).append(path)
    masks = {} if one_folder else {stem: own for stem in folder.files if (own := _mask_files(labels / stem))}
    if not files and not masks:
        raise CellSegError(f"the folder of labels {labels} holds no image")
    if not found and not masks and folder.files and not allow_missing:
        raise CellSegError(
            f"no image in {images} has the name of a label image in {labels}: {next(iter(folder.files.values()))} "
            f"against {files[0].name} (what may follow the image's name: {' '.join(ENDINGS)})"
        )
    return LabelPairs(folder, found, masks, unpaired)


def lone_labels(path: str | Path) -> LabelPairs:
    """The label images that a path names, a folder or one of them, each called as its image would be.

    Raises:
        CellSegError: there is none, or two are of one image.
    """
    path = Path(path)
    if not path.exists():
        raise CellSegError(f"{path} does not exist")
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if _is_label_name(p))
    labels: dict[str, list[Path]] = {}
    for file in files:
        ending = next((ending for ending in ENDINGS if file.stem.endswith(ending) and file.stem != ending), "")
        labels.setdefault(file.stem.removesuffix(ending), []).append(file)
    if not labels:
        raise CellSegError(f"{path} holds no label image")
    root = path if path.is_dir() else path.parent
    return LabelPairs(ImageFolder.of_names(root, {}, allow_missing=True), labels, {}, [])


def _is_label_name(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() in LABEL_SUFFIXES


def _by_common_name(stems: Iterable[str]) -> dict[str, str]:
    """The stems of images by what the names of their label images may begin with."""
    stems = sorted(stems)
    known = {stem: stem for stem in stems}
    for stem in stems:
        for ending in IMAGE_ENDINGS:
            if stem.endswith(ending) and len(stem) > len(ending):
                known.setdefault(stem.removesuffix(ending), stem)
    return known


def _image_of(path: Path, known: dict[str, str], endings: Sequence[str]) -> str | None:
    """The stem of the image to which a label file belongs; None if there is none."""
    for ending in endings:
        if path.stem.endswith(ending) and (name := path.stem.removesuffix(ending)) in known:
            return known[name]
    return None


def _mask_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _is_folder_of_samples(folder: Path) -> bool:
    samples = [path for path in folder.iterdir() if path.is_dir()]
    return any((path / "images").is_dir() and (path / "masks").is_dir() for path in samples)


def _pair_samples(images: Path, labels: Path, allow_missing: bool) -> LabelPairs:
    folder = ImageFolder(images, allow_missing, recursive=True, keep=lambda path: path.parent.name == "images")
    masks = {}
    for stem, name in folder.files.items():
        sample = labels / Path(name).parent.parent.relative_to(".")
        if own := _mask_files(sample / "masks"):
            masks[stem] = own
    return LabelPairs(folder, {}, masks, [])
