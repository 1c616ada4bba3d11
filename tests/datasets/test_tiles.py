"""Images cut into tiles: every pixel of image and mask is in one of them, where it was."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cellseg_d2.cli import convert_to_coco
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.label_images import LabelImages
from cellseg_d2.datasets.leaks import find_leaks
from cellseg_d2.datasets.tiles import TiledSource
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from cellseg_d2.masks.ignore import outside_of

LABELS = np.zeros((31, 47), np.uint16)
for number, (row, column) in enumerate(np.ndindex(5, 7), start=1):
    LABELS[6 * row + 1 : 6 * row + 6, 6 * column + 2 : 6 * column + 7] = number
LABELS[14:17, 20:26] = 99
ROWS, COLUMNS = [0, 10, 20, 31], [0, 15, 31, 47]


@pytest.fixture
def folders(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", generator.integers(0, 60_000, LABELS.shape, dtype=np.uint16))
    tifffile.imwrite(tmp_path / "labels/a.tif", LABELS)
    return tmp_path / "images", tmp_path / "labels"


def test_tiles_are_the_image(folders, tmp_path):
    source, log = TiledSource(LabelImages(*folders), 3, tmp_path / "tiles"), FindingLog()
    records = list(source.records(log))
    assert [record.id for record in records] == [f"a_r{r}c{c}" for r in range(3) for c in range(3)]
    assert len(source) == 9
    image, joined = read_image(folders[0] / "a.tif"), np.zeros_like(LABELS)
    for record, (r, c) in zip(records, np.ndindex(3, 3), strict=True):
        place = slice(ROWS[r], ROWS[r + 1]), slice(COLUMNS[c], COLUMNS[c + 1])
        np.testing.assert_array_equal(read_image(source.images.root / record.file_name), image[place])
        assert image[place].shape == (record.height, record.width)
        for cell in record.cells:
            joined[place][cell.crop.to_full(record.height, record.width)] = cell.row
    left_out = {(finding.id, finding.row): int(finding.reason.split()[0]) for finding in log}
    assert np.count_nonzero(joined != LABELS) == sum(left_out.values())
    for (_, row), pixels in left_out.items():
        assert 10 * pixels < np.count_nonzero(row == LABELS)
    assert all(record.group is None for record in records), "a single image can be split"


def test_tiles_of_one_of_several_images_stay_together(folders, tmp_path):
    for folder in folders:
        tifffile.imwrite(folder / "b.tif", tifffile.imread(folder / "a.tif"))
    records = TiledSource(LabelImages(*folders), 2, tmp_path / "tiles").records(FindingLog())
    assert {(record.id[0], record.group, record.cut_from) for record in records} == {("a", "a", "a"), ("b", "b", "b")}


def test_a_single_image_is_split(folders, tmp_path, capsys):
    given = ["--images", str(folders[0]), "--labels", str(folders[1]), "--no-progress"]
    with pytest.raises(CellSegError, match="--tiles N, which cuts images into tiles"):
        convert_to_coco.main([*given, "--output", str(tmp_path / "ds")])
    convert_to_coco.main([*given, "--output", str(tmp_path / "ds"), "--tiles", "3", "--val-fraction", "0.3"])
    parts = [load_coco(tmp_path / f"ds/instances_{part}.json") for part in ("train", "val")]
    assert [len(records) for records in parts] == [6, 3]
    val = json.loads((tmp_path / "ds/instances_val.json").read_text())
    assert val["info"]["image_root"] == "tiles"
    assert {image["cut_from"] for image in val["images"]} == {"a"}
    assert find_leaks([folders[0] / "a.tif"], [tmp_path / "ds/instances_val.json"])
    assert len(list((tmp_path / "ds/tiles").iterdir())) == 9
    with pytest.raises(CellSegError, match="too small to be cut into 40 × 40"):
        convert_to_coco.main([*given, "--output", str(tmp_path / "no"), "--tiles", "40"])
    inside = ["--images", str(folders[0].rename(tmp_path / "ds/tiles/in")), *given[2:]]
    with pytest.raises(CellSegError, match="would be written over"):
        convert_to_coco.main([*inside, "--output", str(tmp_path / "ds"), "--tiles", "3"])


def test_regions_to_ignore_are_cut_along(folders, tmp_path):
    class Partly(LabelImages):
        def records(self, log):
            for record in super().records(log):
                yield replace(record, ignore=outside_of([record.cells[0].crop], record.height, record.width))

    joined = np.zeros(LABELS.shape, bool)
    for record, (r, c) in zip(
        TiledSource(Partly(*folders), 3, tmp_path / "tiles").records(FindingLog()), np.ndindex(3, 3), strict=True
    ):
        place = slice(ROWS[r], ROWS[r + 1]), slice(COLUMNS[c], COLUMNS[c + 1])
        joined[place] = record.ignore.to_full(record.height, record.width)
    assert np.array_equal(joined, LABELS != 1)
