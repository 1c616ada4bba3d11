"""What users get of a segmented image: arrays that agree with each other, pictures, and a word about itself."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.visualization.overlays import type_color
from tests.inference.segmentations import CLASS_NAMES, HEIGHT, WIDTH, difficult_crops, segmentation_of


@pytest.fixture
def segmentation():
    return segmentation_of(difficult_crops())


def test_the_arrays_agree(segmentation):
    assert len(segmentation) == 7
    assert (segmentation.height, segmentation.width) == (HEIGHT, WIDTH)
    full = [crop.to_full(HEIGHT, WIDTH) for crop in difficult_crops()]
    assert segmentation.masks.dtype == bool
    assert np.array_equal(segmentation.masks, full)
    assert segmentation.labels.dtype == np.uint16
    for i, (mask, box, polygons) in enumerate(
        zip(full, segmentation.boxes.tolist(), segmentation.outlines, strict=True)
    ):
        assert np.array_equal(segmentation.labels == i + 1, mask)
        rows, columns = np.nonzero(mask)
        assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert sum(polygon.area for polygon in polygons) == mask.sum()
    assert segmentation.cell_types == [CLASS_NAMES[i % 2] for i in range(7)]
    assert segmentation.counts == dict(zip(CLASS_NAMES, (4, 3), strict=True))


def test_measurements(segmentation):
    table = segmentation.measure()
    assert table["label"].tolist() == list(range(1, 8))
    assert table["class"].tolist() == segmentation.cell_types
    assert table["score"].iloc[0] == 0.95
    assert table["area_px"].tolist() == [crop.area for crop in difficult_crops()]
    assert table["area_um2"].tolist() == [crop.area / 8 for crop in difficult_crops()]
    for mask, mean in zip(segmentation.masks, table["intensity_mean"], strict=True):
        assert mean == pytest.approx(segmentation.image[mask].mean())
    table["area_px"] = 0
    assert segmentation.measure()["area_px"].all(), "a table of one's own"


def test_no_cells():
    nothing = segmentation_of([])
    assert len(nothing) == 0
    assert nothing.labels.shape == (HEIGHT, WIDTH)
    assert not nothing.labels.any()
    assert nothing.masks.shape == (0, HEIGHT, WIDTH)
    assert nothing.boxes.shape == (0, 4)
    assert nothing.outlines == nothing.cell_types == []
    assert list(nothing.measure().columns) == list(segmentation_of(difficult_crops()).measure().columns)
    assert repr(nothing) == "Segmentation(a: 50 × 40 pixels, 0 cells)"
    assert nothing.picture().shape[1] == 2 * WIDTH


def test_repr(segmentation):
    assert repr(segmentation) == "Segmentation(a: 50 × 40 pixels, 7 cells: 4 round, 3 Ätz/a: b)"
    assert "1 cell: 1 round" in repr(segmentation_of(difficult_crops()[:1]))


def test_picture(segmentation):
    picture = segmentation.picture(upscale=1, thickness=1)
    strip = len(picture) - HEIGHT
    drawn = picture[strip:]
    for i in (3, 4, 5, 6):  # all their pixels are on their outlines, but for the inside of the rectangle
        color = np.array(type_color(CLASS_NAMES[i % 2], CLASS_NAMES))
        rim = difficult_crops()[i].to_full(HEIGHT, WIDTH)
        rim[1:4, WIDTH - 3 : WIDTH - 1] = False
        assert (drawn[rim] == color).all()
    assert strip > 0


def test_a_class_has_its_colour_also_where_others_are_missing():
    alone = Segmentation(
        Cells(4, 4, [MaskCrop(0, 0, np.ones((1, 1), bool))], np.ones(1), np.array([1])), ["first", "second"]
    )
    assert (alone.picture(upscale=1)[-4, 0] == type_color("second", ["first", "second"])).all()


def test_without_an_image():
    plain = Segmentation(segmentation_of(difficult_crops()).cells, CLASS_NAMES)
    assert (plain.picture(upscale=1)[-HEIGHT + 15, 30] == 128).all()
    assert "intensity_mean" not in plain.measure()
    assert "area_um2" not in plain.measure()


@pytest.mark.parametrize(("height", "width", "shown"), [(3, 50, 100), (3, 900, 900), (5, 1600, 1600), (1, 4001, 1334)])
def test_notebooks_show_a_picture_of_moderate_width(height, width, shown):
    crops = [MaskCrop(0, width - 30, np.ones((1, 30), bool)), MaskCrop(0, 1, np.ones((1, 1), bool))]
    png = segmentation_of(crops, height=height, width=width)._repr_png_()
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        assert picture.width == shown
        last = np.array(picture)[-1 if height == 1 else -height * (2 if width == 50 else 1)]
    assert (last[-8:-2] == type_color(CLASS_NAMES[0], CLASS_NAMES)).all(), "cells are where they are in the image"


def test_parts_that_do_not_belong_together():
    cells = segmentation_of(difficult_crops()).cells
    with pytest.raises(CellSegError, match="shape"):
        Segmentation(cells, CLASS_NAMES, np.zeros((5, 5)))
    with pytest.raises(CellSegError, match="do not fit 1 names"):
        Segmentation(cells, ["a"])
    with pytest.raises(CellSegError, match="outside its image"):
        Segmentation(Cells(5, 5, cells.crops, cells.scores, cells.classes), CLASS_NAMES)
    with pytest.raises(CellSegError, match="no pixels"):
        segmentation_of([MaskCrop(0, 0, np.zeros((2, 2), bool))])
    with pytest.raises(CellSegError, match="7 masks, 6 scores"):
        Segmentation(Cells(HEIGHT, WIDTH, cells.crops, cells.scores[1:], cells.classes), CLASS_NAMES)


def test_saving(segmentation, tmp_path):
    paths = segmentation.save(tmp_path / "new", ["csv", "labels", "csv"])
    assert paths == [tmp_path / "new/a_cells.csv", tmp_path / "new/a_labels.tif"]
    assert sorted(tmp_path.joinpath("new").iterdir()) == sorted(paths), "nothing else is left"
    assert segmentation.save(tmp_path, "csv") == [tmp_path / "a_cells.csv"]
    with pytest.raises(CellSegError, match="unknown format png; choose from coco, csv"):
        segmentation.save(tmp_path / "bad", ["csv", "png"])
    assert not (tmp_path / "bad").exists()


def test_pixel_size_is_optional(tmp_path):
    plain = segmentation_of(difficult_crops(), pixel_size=None)
    assert "area_um2" not in plain.measure()
    assert segmentation_of([], pixel_size=PixelSize(1, 1)).pixel_size == PixelSize(1, 1)


def test_800_cells_at_once():
    y, x = np.mgrid[-8:9, -8:9]
    disc = x**2 + y**2 <= 64
    crops = [MaskCrop(20 * (i // 35), 20 * (i % 35), disc) for i in range(800)]
    start = time.process_time()
    crowded = segmentation_of(crops, height=520, width=704)
    assert crowded.labels.max() == 800
    assert len(crowded.boxes) == len(crowded.outlines) == 800
    assert time.process_time() - start < 2
