"""Folders of images and label images."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.label_images import LabelImages, LabelRules, cells_of_labels, read_label_image
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import ImageError

LABELS = np.zeros((8, 10), np.int64)
LABELS[1:4, 1:3] = 5
LABELS[5:7, 4:9] = 200
LABELS[0, 9] = 12


@pytest.fixture
def folders(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "labels"


def add(folders, name, labels=LABELS, suffix=".png", shape=None):
    images, label_folder = folders
    Image.fromarray(np.zeros(shape or labels.shape, np.uint8)).save(images / f"{name}.png")
    if suffix == ".tif":
        tifffile.imwrite(label_folder / f"{name}.tif", labels)
    else:
        Image.fromarray(labels).save(label_folder / f"{name}.png")


def read(folders, clean=False, **options):
    log = FindingLog(clean)
    return list(LabelImages(folders[0], folders[1], **options).records(log)), log


@pytest.mark.parametrize(
    ("dtype", "suffix", "scale"),
    [
        (np.uint8, ".png", 1),
        (np.uint16, ".png", 300),
        (np.uint8, ".tif", 1),
        (np.uint16, ".tif", 300),
        (np.int32, ".tif", 10_000_000),
        (np.uint32, ".tif", 20_000_000),
        (np.float32, ".tif", 100),
    ],
)
def test_every_number_is_a_cell(folders, dtype, suffix, scale):
    add(folders, "a", (LABELS * scale).astype(dtype), suffix)
    (record,), log = read(folders)
    assert log == []
    assert (record.id, record.file_name, record.height, record.width, record.cell_type) == ("a", "a.png", 8, 10, "cell")
    assert [cell.row for cell in record.cells] == [5 * scale, 12 * scale, 200 * scale]
    for cell in record.cells:
        assert np.array_equal(cell.crop.to_full(8, 10), LABELS * scale == cell.row)


def test_an_image_without_cells(folders):
    add(folders, "a", np.zeros((8, 10), np.uint8))
    (record,), _ = read(folders)
    assert (record.cells, record.cell_type) == ([], None)


def test_a_mask_that_fills_the_image(folders):
    add(folders, "a", np.full((8, 10), 70000, np.uint32), ".tif")
    records, log = read(folders)
    assert (records, [finding.kind for finding in log.open_errors]) == ([], ["background with a number"])
    (record,), _ = read(folders, category="nucleus", rules=LabelRules(background=0))
    assert record.cells[0].crop.mask.all()
    assert (record.cells[0].row, record.cells[0].cell_type) == (70000, "nucleus")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full((4, 4), -1, np.int16), "negative"),
        (np.full((4, 4), 0.5, np.float32), "fractions"),
        (np.full((4, 4), np.nan, np.float32), "fractions"),
        (np.full((4, 4), 2.0**25, np.float32), "fractions"),
        (np.zeros((4, 16, 3), np.uint8), "colours"),
        (np.zeros((7, 16, 16), np.uint16), "stack"),
    ],
)
def test_other_values_are_refused(tmp_path, labels, message):
    tifffile.imwrite(tmp_path / "a.tif", labels)
    with pytest.raises(ImageError, match=message):
        read_label_image(tmp_path / "a.tif")


def test_jpegs_are_refused(tmp_path):
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="JPEG"):
        read_label_image(tmp_path / "a.jpg")


def test_what_does_not_match_is_an_error_unless_it_is_dropped(folders):
    add(folders, "good", LABELS.astype(np.uint8))
    add(folders, "large", LABELS.astype(np.uint8), shape=(9, 10))
    for name in ("unseen", "unlabelled", "broken"):
        add(folders, name, LABELS.astype(np.uint8))
    (folders[0] / "unseen.png").unlink()
    (folders[1] / "unlabelled.png").unlink()
    (folders[1] / "broken.png").write_bytes(b"no image")
    for clean in (False, True):
        records, log = read(folders, clean)
        assert [record.id for record in records] == ["good"]
        assert {finding.id: finding.kind for finding in log} == {
            "large": "wrong size",
            "unseen": "missing image",
            "unlabelled": "missing labels",
            "broken": "unreadable image",
        }
        assert len(log.open_errors) == (0 if clean else 4)
    records, log = read(folders, allow_missing=True, drop=("large", "unlabelled", "broken"))
    assert [record.id for record in records] == ["good", "unseen"]
    assert log.open_errors == []


def test_folders_that_do_not_belong_together(folders):
    with pytest.raises(CellSegError, match="holds no label image"):
        read(folders)
    add(folders, "a", LABELS.astype(np.uint8))
    (folders[1] / "a.png").rename(folders[1] / "b_mask.png")
    with pytest.raises(CellSegError, match=r"a\.png against b_mask\.png"):
        read(folders)


# --- how tools name and place label images ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.tif", "a_cp_masks.png"),  # Cellpose
        ("a.png", "a_masks.tif"),
        ("a_img.png", "a_masks.png"),  # Cellpose's own data
        ("a.jpg", "a_labels.tif"),  # this project
        ("a.png", "a_label.png"),
        ("a.png", "a_mask.png"),
        ("a.tif", "a_seg.npy"),  # Cellpose's window
        ("a.png", "a_masks.npy"),
    ],
)
@pytest.mark.parametrize("one_folder", [True, False])
def test_endings(tmp_path, image, label, one_folder):
    labels = tmp_path if one_folder else tmp_path / "labels"
    labels.mkdir(exist_ok=True)
    (tifffile.imwrite if image.endswith("tif") else write_png)(tmp_path / image, np.zeros(LABELS.shape, np.uint8))
    write_labels(labels / label)
    (record,), log = read((tmp_path, labels))
    assert log == []
    assert (record.id, record.file_name) == (Path(image).stem, image)
    assert [(cell.row, cell.crop.area) for cell in record.cells] == [(5, 6), (12, 1), (200, 10)]


def write_png(path, values):
    Image.fromarray(values).save(path)


def write_labels(path, labels=LABELS):
    if path.name.endswith("_seg.npy"):
        # What Cellpose 2 to 4 write: a pickled dict with texts, lists and arrays of all kinds in an array of objects.
        content = {"filename": "a.tif", "masks": labels.astype(np.uint16), "outlines": labels > 3, "est_diam": None}
        content |= {"chan_choose": [0, 0], "ismanual": np.zeros(3, bool), "diameter": np.float64(9.5), "model_path": 0}
        np.save(path, content | {"flows": [np.zeros((2, 3), np.uint8), np.zeros((1, 2), np.float32)]})
    elif path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, labels.astype(np.uint16))
    else:
        write_png(path, labels.astype(np.uint8))


def test_photographs_are_not_their_own_labels(tmp_path):
    for name in "ab":
        write_png(tmp_path / f"{name}.png", np.zeros((8, 10), np.uint8))
    (tmp_path / "sub").mkdir()
    with pytest.raises(CellSegError, match="none beside them that is named as their label image"):
        read((tmp_path, tmp_path))
    with pytest.raises(CellSegError, match="none beside them"):
        read((tmp_path / "sub" / "..", tmp_path))


def test_of_two_label_images_that_differ_one_is_chosen(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((8, 10), np.uint8))
    write_labels(tmp_path / "a_masks.png")
    write_labels(tmp_path / "a_seg.npy")
    (record,), log = read((tmp_path, tmp_path))
    assert (len(record.cells), log) == (3, [])
    write_labels(tmp_path / "a_masks.png", np.where(LABELS == 5, 5, 0))
    records, log = read((tmp_path, tmp_path), clean=True)
    assert (records, [finding.kind for finding in log.open_errors]) == ([], ["several label images"])
    for ending, cells in (("_masks", 1), ("_seg", 3)):
        (record,), log = read((tmp_path, tmp_path), ending=ending)
        assert (len(record.cells), log) == (cells, [])


def test_a_mask_a_cell(tmp_path):
    """The Data Science Bowl 2018's folders, and a folder of masks for each image."""
    first, second = np.zeros((2, 8, 10), np.uint8)
    first[1:4, 1:3], second[3:7, 2:9] = 255, 255  # they share a pixel
    for folder, image in ((tmp_path / "dsb", "x/images/x.png"), (tmp_path / "own/images", "x.png")):
        (folder / image).parent.mkdir(parents=True)
        write_png(folder / image, first)
    for folder in (tmp_path / "dsb/x/masks", tmp_path / "own/labels/x"):
        folder.mkdir(parents=True)
        for number, mask in enumerate((first, second)):
            write_png(folder / f"{number}.png", mask)
    for folders in ((tmp_path / "dsb", tmp_path / "dsb"), (tmp_path / "own/images", tmp_path / "own/labels")):
        (record,), log = read(folders)
        assert (record.id, [cell.row for cell in record.cells], log) == ("x", [1, 2], [])
        for cell, mask in zip(record.cells, (first, second), strict=True):
            assert np.array_equal(cell.crop.to_full(8, 10), mask > 0)
    write_png(tmp_path / "dsb/x/masks/2.png", LABELS.astype(np.uint8))
    records, log = read((tmp_path / "dsb", tmp_path / "dsb"))
    assert (records, [str(finding) for finding in log]) == (
        [],
        ["row 3, id x: malformed mask: 2.png holds several numbers, so it is not the mask of one cell"],
    )


def test_images_without_labels_may_be_left_out(folders):
    for name in "ab":
        add(folders, name, LABELS.astype(np.uint8))
    (folders[1] / "b.png").unlink()
    records, log = read(folders)
    assert [finding.kind for finding in log.open_errors] == ["missing labels"]
    records, log = read(folders, only_labelled=True)
    assert [record.id for record in records] == ["a"]
    assert [(finding.kind, finding.id, finding.action) for finding in log] == [
        ("missing labels", "b", "image left out")
    ]
    assert log.open_errors == []


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"masks": Hostile()}, "holds more than arrays, numbers and texts"),
        ({"outlines": LABELS}, "holds no 'masks'"),
        ({"masks": [1, 2]}, "holds no 'masks'"),
        ({"masks": LABELS[None]}, r"shape \(1, 8, 10\)"),
        ({"masks": -LABELS}, "negative"),
        (LABELS[None], r"shape \(1, 8, 10\)"),
        (np.array(["a", "b"]), r"shape \(2,\)"),
    ],
)
def test_npy_files_that_are_no_label_images(tmp_path, content, message):
    np.save(tmp_path / "a_seg.npy", content)
    with pytest.raises(ImageError, match=message):
        read_label_image(tmp_path / "a_seg.npy")


def test_damaged_npy_files(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, LABELS)
    whole = path.read_bytes()
    for damaged in (
        whole[:-9],
        whole[:50],
        b"\x93NUMPY\x09\x00",
        whole.replace(b"(8, 10)", b"(2**9,)"),
        b"",
        b"x" * 99,
    ):
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            read_label_image(path)
    path.write_bytes(whole.replace(b"(8, 10), }      ", b"(80000, 100000)}"))
    with pytest.raises(ImageError, match="claims to hold 80000 × 100000 pixels"):
        read_label_image(path)


# --- numbers that are not cells ---------------------------------------------------------------------------------------

DISCS = LABELS > 0


@pytest.mark.parametrize("values", [DISCS.astype(np.uint8) * 255, DISCS.astype(np.uint8), DISCS])
def test_binary_masks(folders, values):
    add(folders, "a", values)
    records, log = read(folders, clean=True)
    (finding,) = log
    assert (records, finding.kind, finding.is_open) == ([], "binary mask", True)
    assert "3 pieces" in finding.reason
    assert "--split-components" in finding.reason
    (record,), log = read(folders, rules=LabelRules(components="split"))
    assert log == []
    areas = {(cell.crop.box, cell.crop.area) for cell in record.cells}
    assert areas == {((9, 0, 10, 1), 1), ((1, 1, 3, 4), 6), ((4, 5, 9, 7), 10)}
    (record,), _ = read(folders, rules=LabelRules(components="keep"))
    assert [cell.crop.area for cell in record.cells] == [17]


def test_one_cell_alone_is_no_binary_mask(folders):
    add(folders, "a", np.where(LABELS == 200, 255, 0).astype(np.uint8))
    (record,), log = read(folders)
    assert ([cell.crop.area for cell in record.cells], log) == ([10], [])


def test_a_background_with_a_number(folders):
    """Ilastik's simple segmentation: 1 is cells, 2 background; and 1 as the background of numbered cells."""
    add(folders, "a", np.where(DISCS, 1, 2).astype(np.uint8))
    _, log = read(folders, clean=True)
    assert [finding.kind for finding in log.open_errors] == ["background with a number"]
    assert "2 covers 79 % of the image" in log[0].reason
    assert "--background 2" in log[0].reason
    _, log = read(folders, rules=LabelRules(background=2))
    assert [finding.kind for finding in log.open_errors] == ["binary mask"]
    (record,), _ = read(folders, rules=LabelRules(background=2, components="split"))
    assert len(record.cells) == 3
    add(folders, "a", np.where(DISCS, LABELS, 1).astype(np.uint8))
    _, log = read(folders)
    assert "--background 1" in log[0].reason
    (record,), _ = read(folders, rules=LabelRules(background=1))
    assert [cell.row for cell in record.cells] == [5, 12, 200]


def test_photographs_as_labels_in_another_folder(folders):
    noise = np.random.default_rng(0).integers(1, 250, (60, 60), dtype=np.uint8)
    add(folders, "a", noise)
    _, log = read(folders, clean=True)
    assert [finding.kind for finding in log.open_errors] == ["numbers that are not cells"]
    classes = np.repeat(np.repeat(np.random.default_rng(1).integers(0, 4, (20, 20)), 3, 0), 3, 1)
    cells, problem = cells_of_labels(np.where(np.indices(classes.shape).sum(0) % 7 < 3, classes, 0), LabelRules())
    assert (cells, problem[0]) == ([], "numbers that are not cells")
    cells, problem = cells_of_labels(noise, LabelRules(components="keep"))
    assert (len(cells), problem) == (249, None)


@pytest.mark.parametrize("name", ["bbbc030", "bubil", "ctc", "dsb2018", "usiigaci"])
def test_no_real_label_image_is_taken_for_something_else(shared_data, name):
    folders = shared_data / name / "images", shared_data / name / "labels"
    for path in sorted(folders[1].iterdir())[:40]:
        labels = read_label_image(path)
        cells, problem = cells_of_labels(labels, LabelRules())
        assert problem is None, (path, problem)
        assert len(cells) == len(np.unique(labels[labels > 0]))


# --- real ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "images", "cells"), [("usiigaci", 30, 1903), ("dsb2018", 150, 4673)])
def test_real_folders(shared_data, name, images, cells):
    folders = shared_data / name / "images", shared_data / name / "labels"
    records, log = read(folders)
    assert log.open_errors == []
    assert len(records) == images
    assert sum(len(record.cells) for record in records) == cells
    record = records[0]
    labels = np.array(Image.open(folders[1] / record.file_name))
    assert len(record.cells) == len(np.unique(labels)) - 1
    for cell in record.cells:
        assert np.array_equal(cell.crop.to_full(*labels.shape), labels == cell.row)
