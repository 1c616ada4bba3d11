"""ROI sets of ImageJ and Fiji, as this project writes them too: a ZIP an image, or a single ``.roi``."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from urllib.parse import unquote

from roifile import ROI_TYPE, ImagejRoi

from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions, Source
from cellseg_d2.datasets.shapes import (
    DrawnImage,
    Shape,
    ellipse,
    image_name,
    name_of,
    open_drawn_files,
    ring_of,
    score_of,
)
from cellseg_d2.errors import CellSegError, one_line

# Endings after the image's name: those of this project's files, and ImageJ's own proposal.
ENDINGS = ("_rois", "_roiset", "_roi")
_AREAS = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT)
_LARGEST_ROI = 1 << 24
# As this project calls them: the label, and the class.
_OWN_NAME = re.compile(r"[0-9]{4,} (.+)")


# The property of a ROI that has its class, percent-encoded, where the name cannot hold it.
CLASS = "class"


def plain_name(text: str) -> str:
    """Text without what would be no file's name in a ZIP, or be more than one of Java's 16-bit characters."""
    return re.sub(r"[^\w .()+-]|[\U00010000-\U0010FFFF]", "_", text)


@DATASET_READERS.register("rois", metavar="PATH")
def open_rois(path: Path, options: ReaderOptions) -> dict[str, Source]:
    """ROI sets of ImageJ: the folder of ZIPs named as their images (a.zip, a_rois.zip), or one of them"""
    return open_drawn_files(path, (".zip", ".roi"), read_rois, options)


def read_rois(path: str | Path) -> DrawnImage:
    """Read one set, of which all that has an area is a cell; the image is called as the file.

    Raises:
        CellSegError: it is not a ROI set.
    """
    path = Path(path)
    try:
        rois = _unpacked(path)
    except FileNotFoundError:
        raise CellSegError(f"{path} does not exist") from None
    except MemoryError:
        raise
    except Exception as error:  # roifile trusts such files, down to bare assertions
        raise CellSegError(f"{path} cannot be read as ROIs of ImageJ: {one_line(error)}") from None
    stem = path.stem
    ending = next((ending for ending in ENDINGS if stem.lower().endswith(ending) and len(stem) > len(ending)), "")
    name = stem[: len(stem) - len(ending)]
    return DrawnImage(image_name(name, ".roi"), [_shape(roi, row) for row, roi in enumerate(rois, start=1)])


def _unpacked(path: Path) -> list[ImagejRoi]:
    if path.suffix.lower() == ".roi":
        return [ImagejRoi.frombytes(path.read_bytes())]
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".roi")]
        if any(entry.file_size > _LARGEST_ROI for entry in entries):
            raise ValueError("a ROI of more than 16 MB, which no outline of a cell has")
        return [ImagejRoi.frombytes(archive.read(entry)) for entry in entries]


def _shape(roi: ImagejRoi, row: int) -> Shape:
    own = _OWN_NAME.fullmatch(roi.name or "")
    kind = own[1] if own else None
    # Somebody may have given the ROI another name since, which then counts.
    exact = name_of(unquote(str(roi.properties.get(CLASS, ""))))
    if exact is not None and plain_name(exact) == kind:
        kind = exact
    shape = Shape(kind, row, score=score_of(roi.properties.get("score")))
    if roi.roitype == ROI_TYPE.OVAL:
        radius_x, radius_y = (roi.right - roi.left) / 2, (roi.bottom - roi.top) / 2
        shape.parts = [[ellipse(roi.left + radius_x, roi.top + radius_y, radius_x, radius_y)]]
    elif roi.roitype in _AREAS:
        # Of a composite ROI all outlines; as in ImageJ, those within others are holes.
        shape.parts = [[ring_of(ring) for ring in roi.coordinates(multi=True)]]
    else:
        shape.problem = f"it is a {roi.roitype.name.lower()}, which has no area"
    return shape
