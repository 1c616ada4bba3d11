"""The competition's CSV: exact masks, clear errors, repairs that are reported; on drawn rows and on all real ones."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.sartorius import SartoriusCsv, plate_and_well
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_kaggle

HEIGHT, WIDTH = 10, 20
HEADER = "id,annotation,width,height,cell_type"
GOOD = "a,1 3 21 3,20,10,cort"  # rows 0 and 1, columns 0…2


def write_csv(folder, *rows, header=HEADER):
    path = folder / "train.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def read(path, clean=False, **options):
    log = FindingLog(clean)
    return list(SartoriusCsv(path, **options).records(log)), log


def full(cell):
    return cell.crop.to_full(HEIGHT, WIDTH)


def image_folder(folder, **sizes):
    folder.mkdir(exist_ok=True)
    for name, (height, width) in sizes.items():
        Image.fromarray(np.zeros((height, width), np.uint8)).save(folder / f"{name}.png")
    return folder


def read_sartorius_csv(path):
    log = FindingLog()
    records = list(SartoriusCsv(path).records(log))
    log.raise_open_errors(path)
    return records


def test_rows_become_records_in_their_order(tmp_path):
    path = write_csv(tmp_path, "b,200 1,20,10,astro", GOOD, "b,20 2,20,10,astro")
    b, a = read_sartorius_csv(path)
    assert (b.id, b.file_name, b.height, b.width, b.cell_type, b.group) == ("b", "b.png", 10, 20, "astro", None)
    assert [cell.row for cell in b.cells] == [2, 4]
    assert np.argwhere(full(b.cells[0])).tolist() == [[9, 19]]
    assert np.argwhere(full(b.cells[1])).tolist() == [[0, 19], [1, 0]], "a run may go on in the next line"
    assert a.cells[0].row == 3
    assert a.cells[0].crop.box == (0, 0, 3, 2)


@settings(deadline=None)
@given(st.lists(arrays(bool, (HEIGHT, WIDTH)).filter(np.any), min_size=1, max_size=4))
def test_any_mask_comes_back(tmp_path_factory, masks):
    rows = [f"a,{crop_to_kaggle(MaskCrop.from_full(mask), WIDTH)},{WIDTH},{HEIGHT},cort" for mask in masks]
    (record,) = read_sartorius_csv(write_csv(tmp_path_factory.mktemp("csv"), *rows))
    assert all(np.array_equal(full(cell), mask) for cell, mask in zip(record.cells, masks, strict=True))


def test_all_nine_columns_and_groups(tmp_path):
    header = f"{HEADER},plate_time,sample_date,sample_id,elapsed_timedelta"
    rest = "11h30m00s,2019-06-16,shsy5y[diff]_E10-4_Vessel-714_Ph_3,0 days 11:30:00"
    (record,) = read_sartorius_csv(write_csv(tmp_path, f"{GOOD},{rest}", header=header))
    assert record.group == "shsy5y[diff]_E10"
    assert plate_and_well("cort[6h]_B2-1_Vessel-1_Ph_1") == plate_and_well("cort[6h]_B2-3_Vessel-9_Ph_1")
    assert plate_and_well("nothing") is None
    records, log = read(write_csv(tmp_path, f"{GOOD},,,nothing,", header=header))
    assert records[0].group is None
    assert [finding.kind for finding in log] == ["unreadable sample_id"]


def test_forms_of_the_file(tmp_path):
    text = f"{HEADER}\n\n{GOOD}\n".replace("20,10", "20.0,10.0")
    path = tmp_path / "rows"
    for content in (text.encode(), b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), gzip.compress(text.encode())):
        path.write_bytes(content)
        (record,) = read_sartorius_csv(path)
        assert (record.id, record.height, record.width, record.cells[0].row) == ("a", 10, 20, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"id;annotation;width;height;cell_type\na;1 3;20;10;cort\n", "semicolons"),
        (b"id\tannotation\twidth\theight\tcell_type\n", "tabs"),
        (b"id,predicted\na,1 3\n", "lacks the columns 'annotation', 'width', 'height', 'cell_type'"),
        (f"{HEADER}\n".encode(), "no row"),
        (f"{HEADER}\n{GOOD}\n{GOOD},1\n".encode(), "line 3"),
        (f"{HEADER}\n{GOOD},1\n".encode(), "more fields"),
        (f'{HEADER}\na,"1 3,20,10,cort\n'.encode(), "cannot be read as CSV"),
        (b"\xff\xfe" + HEADER.encode("utf-16"), "UTF-8"),
        (gzip.compress(f"{HEADER}\n{GOOD}\n".encode(), mtime=0)[:-12], "truncated gzip"),
    ],
)
def test_files_that_are_no_such_csv(tmp_path, content, message):
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(CellSegError, match=message) as caught:
        read_sartorius_csv(path)
    assert str(path) in str(caught.value)


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(CellSegError, match="does not exist"):
        read_sartorius_csv(tmp_path / "none.csv")
    with pytest.raises(CellSegError, match="is a folder"):
        read_sartorius_csv(tmp_path)


BIG = 2**63 - 1
# Row, kind of the error, and the pixels (positions row by row) that --clean leaves, None if the row is dropped.
MALFORMED = [
    ("a,1 3 5,20,10,cort", "malformed mask", None),
    ("a,1 x,20,10,cort", "malformed mask", None),
    ("a,1 2.5,20,10,cort", "malformed mask", None),
    ("a,1 99999999999999999999,20,10,cort", "malformed mask", None),
    ("a,,20,10,cort", "empty mask", None),
    ("a,nan,20,10,cort", "empty mask", None),
    ("a,1 0,20,10,cort", "non-positive length", None),
    ("a,1 2 9 -3,20,10,cort", "non-positive length", [0, 1]),
    ("a,0 2,20,10,cort", "outside the image", [0]),
    ("a,199 3,20,10,cort", "outside the image", [198, 199]),
    ("a,201 3,20,10,cort", "outside the image", None),
    (f"a,200 {BIG},20,10,cort", "outside the image", [199]),
    (f"a,{BIG} 5 3 1,20,10,cort", "outside the image", [2]),
    ("a,1 3 2 4,20,10,cort", "overlaps itself", [0, 1, 2, 3, 4]),
    ("a,1 3 1 3,20,10,cort", "overlaps itself", [0, 1, 2]),
    ("a,1 3,20,10,neuron", "unknown cell type", None),
    ("a,1 3,20,10,", "unknown cell type", None),
    ("a,1 3,wide,10,cort", "malformed size", [0, 1, 2]),
    ("a,1 3,20,,cort", "malformed size", [0, 1, 2]),
    ("a,1 3,20,-10,cort", "malformed size", [0, 1, 2]),
    ("a,1 3,20,inf,cort", "malformed size", [0, 1, 2]),
    ("a,1 3,10,20,cort", "inconsistent size", None),
    (",1 3,20,10,cort", "missing id", None),
]


@pytest.mark.parametrize(("row", "kind", "left"), MALFORMED)
def test_malformed_rows_are_refused_and_cleaned(tmp_path, row, kind, left):
    path = write_csv(tmp_path, GOOD, row, "a,100 2,20,10,cort", "b,7 1,20,10,astro")
    with pytest.raises(CellSegError, match="has 1 error") as caught:
        read_sartorius_csv(path)
    assert "row 3" in str(caught.value)
    assert kind in str(caught.value)
    assert ("id a" if row.startswith("a") else "no id") in str(caught.value)

    (a, b), log = read(path, clean=True)
    (finding,) = log
    assert (finding.kind, finding.row) == (kind, 3)
    assert finding.action
    assert not log.open_errors
    rows = {cell.row: np.flatnonzero(full(cell)).tolist() for cell in a.cells}
    assert rows == {2: [0, 1, 2, 20, 21, 22], **({3: left} if left else {}), 4: [99, 100]}
    assert len(b.cells) == 1


def test_many_errors_are_counted_and_the_first_named(tmp_path):
    path = write_csv(tmp_path, *(f"img{i},1 x,20,10,cort" for i in range(9)))
    with pytest.raises(CellSegError, match="has 9 errors") as caught:
        read_sartorius_csv(path)
    text = str(caught.value)
    assert "img0" in text
    assert "img4" in text
    assert "img5" not in text
    assert "4 more" in text


def test_several_flaws_of_one_row_are_all_named(tmp_path):
    _, log = read(write_csv(tmp_path, "a,0 2 0 2 9 0,20,10,worm"))
    assert {finding.kind for finding in log} == {"unknown cell type"}, "a row that is dropped anyhow needs no more"
    _, log = read(write_csv(tmp_path, "a,0 2 5 -1,20,10,cort"))
    assert {finding.kind for finding in log} == {"outside the image", "non-positive length"}


def test_unsorted_runs_are_read_and_reported(tmp_path):
    (record,), log = read(write_csv(tmp_path, "a,21 3 1 3,20,10,cort"))
    assert np.flatnonzero(full(record.cells[0])).tolist() == [0, 1, 2, 20, 21, 22]
    assert [(finding.kind, finding.severity) for finding in log] == [("unsorted runs", "warning")]


def test_an_image_that_loses_all_its_rows_stays_when_its_size_is_known(tmp_path):
    (record,), _ = read(write_csv(tmp_path, "a,,20,10,cort"), clean=True)
    assert (record.cells, record.cell_type) == ([], None)
    records, log = read(write_csv(tmp_path, "a,1 2,,,cort"), clean=True)
    assert records == []
    assert log[0].action == "row dropped"


def test_images_without_rows_can_be_kept_as_fields_without_cells(tmp_path):
    images = ImageFolder(image_folder(tmp_path / "train", a=(10, 20), blank=(8, 12)))
    source = SartoriusCsv(write_csv(tmp_path, GOOD), images, keep_empty=True)
    records = list(source.records(log := FindingLog()))
    assert [(r.id, r.height, r.width, len(r.cells), r.cell_type, r.group) for r in records][1:] == [
        ("blank", 8, 12, 0, None, None)
    ]
    assert len(source) == 2
    assert list(log) == []
    only_header = SartoriusCsv(write_csv(tmp_path), images, keep_empty=True)
    assert [len(record.cells) for record in only_header.records(log)] == [0, 0]
    elsewhere = ImageFolder(image_folder(tmp_path / "other", blank=(8, 12)))
    with pytest.raises(CellSegError, match="none of the 1 annotated images"):
        SartoriusCsv(write_csv(tmp_path, GOOD), elsewhere, keep_empty=True)


def test_images_give_the_file_name_and_are_checked(tmp_path):
    images = image_folder(tmp_path / "train", a=(10, 20), wrong=(10, 21), extra=(10, 20))
    (tmp_path / "train/broken.png").write_bytes((tmp_path / "train/a.png").read_bytes()[:45])
    (tmp_path / "train/a.png").rename(tmp_path / "train/a.PNG")
    rows = [row.replace("a,", f"{name},", 1) for name in ("a", "wrong", "broken", "gone") for row in (GOOD,)]
    path = write_csv(tmp_path, *rows)
    for clean in (False, True):
        records, log = read(path, clean, images=ImageFolder(images))
        assert [record.file_name for record in records] == ["a.PNG"]
        assert [(finding.kind, finding.id) for finding in log] == [
            ("wrong size", "wrong"),
            ("unreadable image", "broken"),
            ("missing image", "gone"),
            ("image without rows", "extra"),
        ]
        assert len(log.open_errors) == (0 if clean else 3)
    records, log = read(path, images=ImageFolder(images, allow_missing=True))
    assert [(record.id, record.file_name, record.width) for record in records] == [
        ("a", "a.PNG", 20),
        ("gone", "gone.png", 20),
    ]
    assert [finding.kind for finding in log.open_errors] == ["wrong size", "unreadable image"]


def test_the_file_decides_which_rows_have_the_wrong_size(tmp_path):
    images = image_folder(tmp_path / "train", a=(10, 20))
    path = write_csv(tmp_path, "a,1 2,30,10,cort", "a,1 2,30,10,cort", GOOD)
    (record,), log = read(path, clean=True, images=ImageFolder(images))
    assert (record.width, [cell.row for cell in record.cells]) == (20, [4])
    assert [(finding.kind, finding.row) for finding in log] == [("inconsistent size", 2), ("inconsistent size", 3)]


def test_a_wrong_folder_is_said_at_once(tmp_path):
    path = write_csv(tmp_path, GOOD)
    other = image_folder(tmp_path / "other", z=(10, 20))
    with pytest.raises(CellSegError, match="none of the 1 annotated images"):
        read(path, clean=True, images=ImageFolder(other))
    with pytest.raises(CellSegError, match="does not exist"):
        ImageFolder(tmp_path / "nowhere")
    (other / "sub").mkdir()
    image_folder(other / "sub", z=(10, 20))
    assert ImageFolder(other).files == {"z": "z.png"}
    assert ImageFolder(other, recursive=True).files == {"z": "z.png", "sub/z": "sub/z.png"}
    (other / "sub/z.tif").touch()
    with pytest.raises(CellSegError, match=r"two images called z: sub/z\.png and sub/z\.tif"):
        ImageFolder(other, recursive=True)


def test_images_can_be_left_out(tmp_path):
    records, log = read(write_csv(tmp_path, GOOD, "b,1 2,20,10,cort", "b,1 x,20,10,cort"), drop=("b",))
    assert [record.id for record in records] == ["a"]
    assert [(finding.kind, finding.id, finding.action) for finding in log] == [("left out", "b", "image dropped")]


@pytest.mark.parametrize("name", ["sartorius/train.csv", "sartorius_annotations_only.csv.gz"])
def test_every_real_mask_is_exact(shared_data, name):
    """All texts, written anew from the masks, are what the CSV has; read with another parser, line by line."""
    path = shared_data / name
    with (gzip.open if name.endswith("gz") else open)(path, "rt") as file:
        next(file)
        expected = [line.split(",") for line in file]
    records = read_sartorius_csv(path)
    assert list(dict.fromkeys(line[0] for line in expected)) == [record.id for record in records]
    seen = 0
    for record in records:
        for cell in record.cells:
            image, text, _, _, cell_type = expected[cell.row - 2]
            assert (image, cell_type.strip()) == (record.id, cell.cell_type)
            assert crop_to_kaggle(cell.crop, record.width) == text, f"row {cell.row}"
            seen += 1
    assert seen == len(expected) == (4131 if name.startswith("sartorius/") else 42325)
