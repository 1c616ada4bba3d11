"""COCO JSON as others read it, and read back by this project."""

import contextlib
import io
import json

import numpy as np
import pytest
from faster_coco_eval import COCO as FasterCOCO
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cellseg_d2.datasets.coco_json import encode_record, relative_root, write_coco_files
from cellseg_d2.datasets.coco_reader import CocoSource, load_coco
from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop
from tests.coco_files import write_coco

TYPES = ("shsy5y", "astro", "cort")


def records_of(*stacks, height=12, width=15):
    """One image of each stack of masks ``(N, H, W)``; types take turns."""
    return [
        ImageRecord(
            f"img{i}",
            f"img{i}.png",
            height,
            width,
            TYPES[i % 3] if len(stack) else None,
            f"well{i % 2}",
            [CellAnnotation(MaskCrop.from_full(mask), TYPES[i % 3], row) for row, mask in enumerate(stack, start=2)],
        )
        for i, stack in enumerate(stacks)
    ]


def blobs(count=3, seed=0, height=12, width=15):
    rng = np.random.default_rng(seed)
    return rng.random((count, height, width)) < 0.3


def quiet(load, path):
    with contextlib.redirect_stdout(io.StringIO()):
        return load(str(path))


@pytest.mark.parametrize("load", [COCO, FasterCOCO])
def test_the_usual_readers_see_the_same_masks(tmp_path, load):
    stacks = [blobs(3), blobs(0), blobs(2, seed=1)]
    write_coco(tmp_path / "a.json", records_of(*stacks), TYPES, {"image_root": "images"})
    coco = quiet(load, tmp_path / "a.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(TYPES)
    assert coco.getCatIds() == [1, 2, 3]
    assert coco.getImgIds() == [1, 2, 3]
    for number, stack in enumerate(stacks, start=1):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
        assert len(annotations) == len(stack)
        for annotation, mask in zip(annotations, stack, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            assert annotation["bbox"] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
            assert annotation["category_id"] == (number - 1) % 3 + 1


def test_entries(tmp_path):
    write_coco(tmp_path / "a.json", records_of(blobs(1), blobs(0)), TYPES, {"image_root": "images"})
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["info"] == {"image_root": "images"}
    assert content["licenses"] == []
    assert content["categories"][1] == {"id": 2, "name": "astro", "supercategory": "cell"}
    assert content["images"] == [
        {
            "id": 1,
            "file_name": "img0.png",
            "height": 12,
            "width": 15,
            "cell_type": "shsy5y",
            "group": "well0",
            "source_id": "img0",
        },
        {"id": 2, "file_name": "img1.png", "height": 12, "width": 15, "group": "well1", "source_id": "img1"},
    ]
    (annotation,) = content["annotations"]
    assert annotation["segmentation"]["size"] == [12, 15]
    expected = coco_mask.encode(np.asfortranarray(blobs(1)[0].astype(np.uint8)))["counts"].decode()
    assert annotation["segmentation"]["counts"] == expected


def test_a_data_set_without_images_is_still_json(tmp_path):
    write_coco(tmp_path / "a.json", [], TYPES)
    assert load_coco(tmp_path / "a.json") == []


@settings(deadline=None)
@given(st.lists(arrays(bool, (12, 15)).filter(np.any), max_size=4))
def test_what_is_written_is_read_back(tmp_path_factory, masks):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    (record,) = records_of(masks)
    write_coco(path, [record], TYPES)
    (again,) = load_coco(path)
    assert (again.id, again.file_name, again.height, again.width) == ("img0", "img0.png", 12, 15)
    assert (again.cell_type, again.group, again.number) == (record.cell_type, "well0", 1)
    for number, (cell, mask) in enumerate(zip(again.cells, masks, strict=True), start=1):
        assert np.array_equal(cell.crop.to_full(12, 15), mask)
        assert (cell.cell_type, cell.row) == ("shsy5y", number)


def test_nothing_is_replaced_when_one_file_fails(tmp_path):
    (tmp_path / "a.json").write_text("older")
    encoded = [encode_record(record, 1, {"shsy5y": 1}) for record in records_of(blobs(1))]

    def breaks():
        yield encoded[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_coco_files({tmp_path / "a.json": (encoded, {}), tmp_path / "b.json": (breaks(), {})}, TYPES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "older"


def test_root_of_the_images_is_relative_where_they_can_move_together(tmp_path):
    output = tmp_path / "datasets" / "sartorius"
    assert relative_root(output / "images", output) == "images"
    assert relative_root(tmp_path / "datasets" / "raw" / "train", output) == "../raw/train"
    assert relative_root(tmp_path / "elsewhere", output) == (tmp_path / "elsewhere").as_posix()


def coco_content(*segmentations, **extra):
    return {
        "images": [{"id": 7, "file_name": "sub/x.png", "height": 20, "width": 30}],
        "categories": [{"id": 4, "name": "nucleus"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 4, "segmentation": segmentation, **extra}
            for i, segmentation in enumerate(segmentations, start=100)
        ],
    }


def write(folder, content):
    (folder / "in.json").write_text(json.dumps(content))
    return folder / "in.json"


SQUARE = [5, 4, 15, 4, 15, 10, 5, 10]


def test_all_forms_of_segmentation(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[4:10, 5:15] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    compressed = {"size": [20, 30], "counts": rle["counts"].decode()}
    plain = {"size": [20, 30], "counts": [5 * 20 + 4] + [6, 14] * 9 + [6, 15 * 20 + 10]}
    two = [[5, 4, 10, 4, 10, 10, 5, 10], [10, 4, 15, 4, 15, 10, 10, 10]]
    (record,) = load_coco(write(tmp_path, coco_content([SQUARE], SQUARE, compressed, plain, two)))
    assert (record.id, record.number, record.cell_type) == ("x", 7, "nucleus")
    assert [cell.row for cell in record.cells] == [100, 101, 102, 103, 104]
    for cell in record.cells:
        assert np.array_equal(cell.crop.to_full(20, 30), mask.astype(bool)), cell.row


def test_annotations_may_be_a_dict(tmp_path):
    content = coco_content([SQUARE], [SQUARE])
    as_dict = {**content, "annotations": {str(a["id"]): a for a in content["annotations"]}}
    (record,) = load_coco(write(tmp_path, as_dict))
    assert [cell.crop.area for cell in record.cells] == [60, 60]


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([], "malformed mask"),
        (None, "malformed mask"),
        ([[1, 2, 3, 4]], "malformed mask"),
        ([[1, 2, 3, 4, 5, 6, 7]], "malformed mask"),
        ([[1, 2, 3, 4, 5, "x"]], "malformed mask"),
        ([[1, 2, 3, 4, 5, float("nan")]], "malformed mask"),
        ({"counts": "11"}, "malformed mask"),
        ({"size": [30, 20], "counts": [600]}, "malformed mask"),
        ({"size": [20, 30], "counts": [5, 5]}, "malformed mask"),
        ({"size": [20, 30], "counts": None}, "malformed mask"),
        ({"size": [20, 30], "counts": [600]}, "empty mask"),
        ([[50, 50, 60, 50, 60, 60]], "empty mask"),
        ([[-5, 4, 15, 4, 15, 10, -5, 10]], "outside the image"),
    ],
)
def test_malformed_annotations_are_refused_and_cleaned(tmp_path, segmentation, kind):
    path = write(tmp_path, coco_content([SQUARE], segmentation))
    with pytest.raises(CellSegError, match=f"row 101, id x: {kind}"):
        load_coco(path)
    log = FindingLog(clean=True)
    (record,) = CocoSource(path).records(log)
    assert [cell.row for cell in record.cells] == ([100, 101] if kind == "outside the image" else [100])
    assert log[0].action


def test_polygons_along_the_border_are_fine(tmp_path):
    (record,) = load_coco(write(tmp_path, coco_content([[-0.5, -1, 30.4, -1, 30.4, 20.9, -0.5, 20.9]])))
    assert record.cells[0].crop.area == 600


def test_unknown_images_and_categories_and_crowds(tmp_path):
    content = coco_content([SQUARE], [SQUARE], [SQUARE], [SQUARE])
    content["annotations"][1]["image_id"] = 8
    content["annotations"][2]["category_id"] = 9
    content["annotations"][3]["iscrowd"] = 1
    path = write(tmp_path, content)
    log = FindingLog()
    (record,) = CocoSource(path).records(log)
    assert [(f.kind, f.row, f.severity) for f in log] == [
        ("unknown image", 101, "error"),
        ("unknown cell type", 102, "error"),
        ("crowd", 103, "warning"),
    ]
    assert [cell.row for cell in record.cells] == [100]
    assert record.ignore.box == record.cells[0].crop.box

    write_coco(tmp_path / "out.json", [record], CocoSource(path).categories)
    marked = [annotation["iscrowd"] for annotation in json.loads((tmp_path / "out.json").read_text())["annotations"]]
    assert marked == [0, 1]
    (again,) = load_coco(tmp_path / "out.json")
    assert len(again.cells) == 1
    assert again.ignore.box == record.ignore.box
    assert (again.ignore.mask == record.ignore.mask).all()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"images": []}', '{"images": [{}], "annotations": [], "categories": []}']
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(CellSegError, match="JSON"):
        load_coco(tmp_path / "in.json")


def test_images_need_unique_ids_and_names(tmp_path):
    content = coco_content()
    content["images"].append({**content["images"][0], "file_name": "y.png"})
    with pytest.raises(CellSegError, match="same id"):
        load_coco(write(tmp_path, content))
    content["images"][1].update(id=8, file_name="other/x.png")
    assert [record.id for record in load_coco(write(tmp_path, content))] == ["sub/x", "other/x"]
    content["images"][1]["file_name"] = "sub/x.tif"
    with pytest.raises(CellSegError, match="sub/x"):
        load_coco(write(tmp_path, content))


def test_findings_are_in_the_order_of_the_file(tmp_path):
    """Also those of images that are not listed, so that every call says the same."""
    names = [f"x{number}" for number in range(12)]
    cells = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]} for n in names]
    content = {"images": [], "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    log = FindingLog()
    assert list(CocoSource(tmp_path / "a.json").records(log)) == []
    assert [finding.row for finding in log] == names
