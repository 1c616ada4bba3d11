"""The table in docs/formats.md is what comes in and back through every reader and writer, each tried here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg_d2.cli import convert, convert_to_coco, evaluate
from cellseg_d2.cli.convert import formats
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.readers import DATASET_READERS
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.detections.saved import load_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import batch_formats
from cellseg_d2.inference.batch import segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.masks.crop import MaskCrop, crop_to_kaggle
from cellseg_d2.predictions.truth import read_truth
from cellseg_d2.visualization.report.cells import gather_cells
from tests.coco_files import write_coco
from tests.conftest import REPOSITORY
from tests.inference.segmentations import segmentation_of

HEIGHT, WIDTH = 24, 30
IMAGES = ("a", "b")  # the latter without cells
RING = np.ones((9, 9), bool)
RING[3:6, 3:6] = False
# For each cell its class and its mask; rectangles for what is written here by hand, of which two overlap.
RECTANGLES = [
    ("live", MaskCrop(2, 3, np.ones((5, 6), bool))),
    ("dead", MaskCrop(5, 6, np.ones((7, 8), bool))),
    ("dead", MaskCrop(4, 20, np.ones((4, 5), bool))),
]
OURS = [
    *RECTANGLES,
    ("live", MaskCrop(13, 1, RING)),
    ("dead", MaskCrop(14, 20, np.eye(6, dtype=bool))),
]
OVERLAPPING = 2  # the first cells of both
TOGETHER = {"coco": "coco.json", "submission": "submission.csv", "images": "images.csv"}


def corners(crop: MaskCrop) -> list[list[int]]:
    x0, y0 = crop.left, crop.top
    x1, y1 = x0 + crop.mask.shape[1], y0 + crop.mask.shape[0]
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


# Files as other programs write them, of RECTANGLES.


def draw_labelme(folder: Path) -> Path:
    for name in IMAGES:
        shapes = [{"label": k, "shape_type": "polygon", "points": corners(c)} for k, c in RECTANGLES]
        content = {"version": "5.5.0", "imagePath": f"{name}.png", "shapes": shapes if name == "a" else []}
        size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        (folder / f"{name}.json").write_text(json.dumps(content | size))
    return folder


def draw_cvat(folder: Path) -> Path:
    points = [(kind, ";".join(f"{x}.00,{y}.00" for x, y in corners(crop))) for kind, crop in RECTANGLES]
    polygons = "".join(f'<polygon label="{kind}" points="{text}"></polygon>' for kind, text in points)
    images = "".join(
        f'<image id="{i}" name="{name}.png" width="{WIDTH}" height="{HEIGHT}">{polygons if name == "a" else ""}</image>'
        for i, name in enumerate(IMAGES)
    )
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{images}</annotations>")
    return folder / "annotations.xml"


def draw_via(folder: Path) -> Path:
    regions = []
    for kind, crop in RECTANGLES:
        x, y = zip(*corners(crop), strict=True)
        shape = {"name": "polygon", "all_points_x": x, "all_points_y": y}
        regions.append({"shape_attributes": shape, "region_attributes": {"type": kind}})
    entries = {f"{n}.png9": {"filename": f"{n}.png", "size": 9, "regions": regions if n == "a" else []} for n in IMAGES}
    (folder / "via.json").write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": entries}))
    return folder / "via.json"


def draw_csv(folder: Path) -> Path:
    kinds = {"live": "cort", "dead": "astro"}
    rows = [f"a,{crop_to_kaggle(crop, WIDTH)},{WIDTH},{HEIGHT},{kinds[kind]}" for kind, crop in RECTANGLES]
    header = "id,annotation,width,height,cell_type"
    (folder / "train.csv").write_text("\n".join([header, *rows, ""]))
    return folder / "train.csv"


def draw_livecell(folder: Path) -> Path:
    images = [{"id": i, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for i, n in enumerate(IMAGES)]
    outlines = [[float(value) for corner in corners(crop) for value in corner] for _, crop in RECTANGLES]
    cells = [
        {"id": 9 + i, "image_id": 0, "category_id": 1, "iscrowd": 0, "segmentation": [outline]}
        for i, outline in enumerate(outlines)
    ]
    content = {"images": images, "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "livecell_coco_val.json").write_text(json.dumps(content))
    return folder / "livecell_coco_val.json"


DRAWN: Mapping[str, Callable[[Path], Path]] = {
    "labelme": draw_labelme,
    "cvat": draw_cvat,
    "via": draw_via,
    "csv": draw_csv,
    "livecell": draw_livecell,
}


class Door:
    """One format, and what was found to come in through it.

    Attributes:
        reader, infer, convert: names by which commands read and write it; "" for those that do not.
        summary: what it is.
        readers: the commands that take it.
        content: what they find in it.
    """

    def __init__(self, name: str, reader: bool, written: bool):
        self.reader = f"`--{name}`" if reader else ""
        self.infer = f"`{name}`" if written and name in batch_formats() else ""
        self.convert = f"`{name}`" if written and name in formats() else ""
        self.summary = DATASET_READERS[name].summary if reader else {**formats(), **batch_formats()}[name]
        self.readers: list[str] = []
        self.content: list[str] = []

    def row(self) -> str:
        what = self.summary.replace("``", "`")
        found = ", ".join(self.readers), ", ".join(sorted(self.content, key=CONTENT.index))
        return "| " + " | ".join((what, self.reader, self.infer, self.convert, *found)) + " |"


HEAD = ("format", "`convert-to-coco`", "`infer --save`", "`convert --to`", "read by", "what comes in")
CONTENT = ("cells", "classes", "scores", "overlaps", "sizes", "images without cells")


def truth_of(cells: Iterable[tuple[str, MaskCrop]], folder: Path) -> Path:
    """A COCO JSON of the images, one of which has these cells."""
    own = [CellAnnotation(crop, kind, row, row / 8) for row, (kind, crop) in enumerate(cells, start=1)]
    records = [ImageRecord("a", "a.png", HEIGHT, WIDTH, "dead", None, own), ImageRecord("b", "b.png", HEIGHT, WIDTH)]
    write_coco(folder / "truth.json", records, ("dead", "live"), {"image_root": "images"})
    return folder / "truth.json"


def masks_of(records: Iterable[ImageRecord]) -> dict[str, Counter]:
    return {r.id: Counter(cell.crop.to_full(HEIGHT, WIDTH).tobytes() for cell in r.cells) for r in records}


def try_reading(door: Door, place: Path, cells: list[tuple[str, MaskCrop]], folder: Path, truth: Path) -> None:
    """Note which commands take what is in a place, and how much of these cells they find."""
    images = ["--images", str(folder / "images")]
    into = ["--to", "coco", "--output", str(folder / "back")]
    converted = None
    for given in ([], images):
        with suppress(CellSegError):
            convert.main([str(place), *into, *given])
            converted = load_coco(folder / "back/coco.json")
            door.readers.append("`convert`")
            door.content += [] if given else ["sizes"]
            break
    if door.reader:
        given = [door.reader.strip("`"), str(place), *images, "--val-fraction", "0"]
        if door.reader == "`--livecell`":  # whose own parts are kept
            given = [door.reader.strip("`"), str(place), "--livecell-images", images[1]]
        given += ["--keep-components"] if door.reader == "`--labels`" else []
        convert_to_coco.main([*given, "--output", str(folder / "ds"), "--no-progress"])
        (part,) = (folder / "ds").glob("instances_*.json")
        trained = load_coco(part)
        assert masks_of(trained)["a"] == masks_of(converted or trained)["a"], "training has the same cells"
        converted = converted or trained
    out = folder / "scores.json"
    with suppress(CellSegError):
        evaluate.main(["--predictions", str(place), "--ground-truth", str(truth), "--json", str(out)])
        assert json.loads(out.read_text())["fp50"] == 0
        report = gather_cells(place, truth)
        alone = gather_cells(place, None, [folder / "images"])
        assert {i.name: i.predicted_count for i in report.images} == {i.name: i.predicted_count for i in alone.images}
        door.readers.append("predictions")
    with suppress(CellSegError):
        given = ["--predictions", str(truth), "--ground-truth", str(place), *images]
        evaluate.main([*given, "--json", str(out)])
        assert json.loads(out.read_text())["fn50"] == 0
        door.readers.append("truth")
    if door.readers:
        note_content(door, place, cells, converted)


def try_detections(door: Door, file: Path) -> None:
    """What ``tune-postprocess`` reads; beside the masks also what no other format holds."""
    expected = segmentation_of([crop for _, crop in OURS])
    (found,) = load_detections(file).images.values()
    assert np.array_equal(found.classes, expected.detections.classes)
    assert np.array_equal(found.scores, expected.detections.scores)
    assert [c.mask.tolist() for c in found.crops()] == [crop.mask.tolist() for _, crop in OURS]
    door.readers, door.content = ["`tune-postprocess`"], ["cells", "classes", "scores", "overlaps"]


def note_content(door: Door, place: Path, cells: list[tuple[str, MaskCrop]], converted: list | None) -> None:
    if converted is None:  # only scored: without a pixel of two cells, as submissions are
        door.content.append("cells")
        return
    expected = [crop.to_full(HEIGHT, WIDTH).tobytes() for _, crop in cells]
    found = masks_of(converted)
    assert not found.get("b")
    assert found["a"] >= Counter(expected[OVERLAPPING:]), "each cell has the very pixels"
    door.content.append("cells")
    if found["a"] == Counter(expected):
        door.content.append("overlaps")
    kinds = Counter(cell.cell_type for record in converted for cell in record.cells)
    if "truth" in door.readers:  # of the competition's file, conversion makes one class, unless it is told otherwise
        truth = read_truth(place, dict.fromkeys(IMAGES, (HEIGHT, WIDTH)))
        kinds = max(kinds, Counter(truth.images["a"].types), key=len)
    scores = sorted(cell.score or 0 for record in converted for cell in record.cells)
    if scores == [row / 8 for row in range(1, len(cells) + 1)]:
        door.content.append("scores")
    if "b" in found:
        door.content.append("images without cells")
    if sorted(kinds.values()) == sorted(Counter(kind for kind, _ in cells).values()):
        door.content.append("classes")


@pytest.fixture(scope="module")
def doors(tmp_path_factory) -> dict[str, Door]:
    """Every format that is read or written, after everything was tried with it.

    A name in :data:`DRAWN` is not read as it is written: ``csv`` is the competition's file, and ``csv >`` our table.
    """
    found: dict[str, Door] = {}
    for name in sorted({*DATASET_READERS, *formats(), *batch_formats()}):
        folder = tmp_path_factory.mktemp(name)
        (folder / "images").mkdir()
        for image in IMAGES:
            cv2.imwrite(str(folder / f"images/{image}.png"), np.full((HEIGHT, WIDTH), 9, np.uint8))
        if name in DRAWN:
            (folder / "drawn/files").mkdir(parents=True)  # beside no images, whose sizes would be taken
            found[name] = Door(name, True, False)
            place = DRAWN[name](folder / "drawn/files")
            try_reading(found[name], place, RECTANGLES, folder, truth_of(RECTANGLES, folder))
        if name in {*formats(), *batch_formats()}:
            door = Door(name, name not in DRAWN and name in DATASET_READERS, True)
            found[f"{name} >" if name in DRAWN else name] = door
            place = written(name, folder)
            if place.is_dir() and any((folder / "infer").glob("*.*")):
                door.summary += "; with `convert` a file an image"
            try_reading(door, place, OURS, folder, folder / "truth.json")
            if name == "detections":
                try_detections(door, place)
    return found


def written(name: str, folder: Path) -> Path:
    """Write a format with the commands that do, and return where ``convert``, or else ``infer``, has put it."""
    truth, place = truth_of(OURS, folder), TOGETHER.get(name, name)
    if name in batch_formats() and name != "detections":
        image = np.full((HEIGHT, WIDTH), 20, np.uint8)
        image[4:12, 5:15] = 200
        cv2.imwrite(str(folder / "a.png"), image)
        segment_files(ClassicalSegmenter("otsu"), [folder / "a.png"], folder / "infer", [name])
    if name in formats():
        convert.main([str(truth), "--to", name, "--output", str(folder / "out"), "--images", str(folder / "images")])
        return folder / "out" / place
    if name == "detections":
        (file,) = segmentation_of([crop for _, crop in OURS]).save(folder / "out", [name])
        return file
    return folder / "infer" / place


def test_every_reader_and_writer_has_a_row(doors):
    assert {door.reader for door in doors.values() if door.reader} == {f"`--{name}`" for name in DATASET_READERS}
    assert {door.infer for door in doors.values() if door.infer} == {f"`{name}`" for name in batch_formats()}
    assert {door.convert for door in doors.values() if door.convert} == {f"`{name}`" for name in formats()}


def test_what_can_be_annotated_is_taken_by_every_command(doors):
    for door in doors.values():
        if door.reader:
            assert {"`convert`", "truth"} <= set(door.readers), door.summary
            assert "cells" in door.content


def test_the_table_is_what_was_found(doors):
    def place(door: Door) -> tuple:
        return not door.reader, not (door.infer or door.convert), not door.readers, door.summary.lower()

    order = sorted(doors.values(), key=place)
    rows = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD), *(door.row() for door in order)]
    expected = "\n".join(rows)
    text = (REPOSITORY / "docs/formats.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- formats -->\n(.*?)\n?<!-- end -->", text, re.S)[1]
    assert shown == expected, f"put this into docs/formats.md:\n{expected}"
