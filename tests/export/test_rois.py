"""ROIs for ImageJ: read back, they cover the pixels of their cells by the rule with which ImageJ fills polygons."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from roifile import ROI_TYPE, ImagejRoi, roiread, roiwrite

from cellseg_d2.datasets.imagej_rois import read_rois
from cellseg_d2.errors import CellSegError
from cellseg_d2.export.rois import write_rois
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.postprocess.steps import Cells
from cellseg_d2.visualization.overlays import type_color
from tests.inference.segmentations import CLASS_NAMES, HEIGHT, WIDTH, difficult_crops, segmentation_of


def filled(roi, height=HEIGHT, width=WIDTH):
    """The pixels whose centres an odd number of the ROI's edges lies to the left of."""
    inside = np.zeros((height, width), bool)
    for path in roi.coordinates(multi=True):
        for (x0, y0), (x1, y1) in zip(path, np.roll(path, -1, axis=0), strict=True):
            if y0 != y1:
                assert x0 == x1, "all edges go along the grid"
                inside[int(min(y0, y1)) : int(max(y0, y1)), int(x0) :] ^= True
    return inside


def test_the_same_pixels(tmp_path):
    segmentation = segmentation_of(difficult_crops())
    write_rois(tmp_path / "a.zip", segmentation)
    rois = roiread(tmp_path / "a.zip")
    assert len(rois) == len(segmentation)
    for roi, mask, (x0, y0, x1, y1) in zip(rois, segmentation.masks, segmentation.boxes.tolist(), strict=True):
        assert np.array_equal(filled(roi), mask)
        assert (roi.left, roi.top, roi.right, roi.bottom) == (x0, y0, x1, y1)
    kinds = [ROI_TYPE.TRACED, ROI_TYPE.RECT, ROI_TYPE.RECT, *[ROI_TYPE.TRACED] * 4]
    assert [roi.roitype for roi in rois] == kinds, "several rings make a composite, whose type is that of a rectangle"
    assert [roi.composite for roi in rois] == [kind == ROI_TYPE.RECT for kind in kinds]


@settings(max_examples=20, deadline=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)).filter(np.any))
def test_any_mask(tmp_path_factory, mask):
    path = tmp_path_factory.mktemp("rois") / "a.zip"
    segmentation = segmentation_of([MaskCrop(4, 9, mask)])
    write_rois(path, segmentation)
    [roi] = roiread(path)
    assert np.array_equal(filled(roi), segmentation.masks[0])


def test_names_colours_and_properties(tmp_path):
    write_rois(tmp_path / "a.zip", segmentation_of(difficult_crops()))
    rois = roiread(tmp_path / "a.zip")
    assert [roi.name for roi in rois[:2]] == ["0001 round", "0002 Ätz_a_ b"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist()[:2] == ["0001 round.roi", "0002 Ätz_a_ b.roi"]
    for roi, kind in zip(rois, CLASS_NAMES, strict=False):
        assert tuple(roi.stroke_color) == (255, *type_color(kind, CLASS_NAMES))
    assert rois[0].properties == {"score": 0.95}
    assert {roi.position for roi in rois} == {0}
    write_rois(tmp_path / "a.zip", segmentation_of(difficult_crops()), position=3)
    assert {roi.position for roi in roiread(tmp_path / "a.zip")} == {3}


@pytest.mark.parametrize("kind", ["a/b", "a:b", "a_b", "100 %", "%2F", "\U0001f9a0 細胞", "tumor: +"])
def test_any_class_comes_back(tmp_path, kind):
    """Also where the name of the ROI cannot hold it; a name that was given since counts more."""
    cells = segmentation_of(difficult_crops()[:1]).cells
    write_rois(tmp_path / "a.zip", Segmentation(cells, [kind]))
    assert [shape.kind for shape in read_rois(tmp_path / "a.zip").shapes] == [kind]
    [roi] = roiread(tmp_path / "a.zip")
    roi.name = "0001 other"
    roiwrite(tmp_path / "b.zip", [roi])
    assert [shape.kind for shape in read_rois(tmp_path / "b.zip").shapes] == ["other"]


def test_names_beyond_16_bits(tmp_path):
    cells = segmentation_of(difficult_crops()[:1]).cells
    write_rois(tmp_path / "a.zip", Segmentation(cells, ["\U0001f9a0 細胞\n"]))
    [roi] = roiread(tmp_path / "a.zip")
    assert roi.name == "0001 _ 細胞_"


def test_no_cells(tmp_path):
    write_rois(tmp_path / "a.zip", segmentation_of([]))
    assert ImagejRoi.fromfile(tmp_path / "a.zip") == []


def test_far_out_in_a_large_image(tmp_path):
    crop = MaskCrop(40_000, 60_000, np.ones((3, 4), bool))
    write_rois(tmp_path / "a.zip", Segmentation(Cells(50_000, 60_500, [crop], np.ones(1), np.zeros(1, int)), ["a"]))
    [roi] = roiread(tmp_path / "a.zip")
    assert roi.coordinates().tolist() == [[60_000, 40_000], [60_004, 40_000], [60_004, 40_003], [60_000, 40_003]]
    with pytest.raises(CellSegError, match="reach to 60535 pixels only"):
        write_rois(tmp_path / "b.zip", Segmentation(Cells(9, 70_000, [], np.ones(0), np.zeros(0, int)), ["a"]))
    assert not (tmp_path / "b.zip").exists()
