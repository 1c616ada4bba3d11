"""Folders of images and label images."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.image_folder import ImageFolder
from cellseg_d2.datasets.label_images import LabelImages, read_label_image
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
    images = ImageFolder(folders[0], allow_missing=options.pop("allow_missing", False))
    return list(LabelImages(images, folders[1], **options).records(log)), log


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
    (record,), _ = read(folders, category="nucleus")
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
    for name in ("only_label", "only_image", "broken"):
        add(folders, name, LABELS.astype(np.uint8))
    (folders[0] / "only_label.png").unlink()
    (folders[1] / "only_image.png").unlink()
    (folders[1] / "broken.png").write_bytes(b"no image")
    for clean in (False, True):
        records, log = read(folders, clean)
        assert [record.id for record in records] == ["good"]
        assert {finding.id: finding.kind for finding in log} == {
            "large": "wrong size",
            "only_label": "missing image",
            "only_image": "missing labels",
            "broken": "unreadable image",
        }
        assert len(log.open_errors) == (0 if clean else 4)
    records, log = read(folders, allow_missing=True, drop=("large", "only_image", "broken"))
    assert [record.id for record in records] == ["good", "only_label"]
    assert log.open_errors == []


def test_folders_that_do_not_belong_together(folders):
    with pytest.raises(CellSegError, match="holds no image"):
        read(folders)
    add(folders, "a", LABELS.astype(np.uint8))
    (folders[1] / "a.png").rename(folders[1] / "a_mask.png")
    with pytest.raises(CellSegError, match=r"a\.png against a_mask\.png"):
        read(folders)


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
