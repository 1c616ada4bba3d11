"""Measurements of shapes whose size, place and direction are known."""

import numpy as np
import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.inference.measure import measure_cells
from cellseg_d2.masks.crop import MaskCrop

SIZE = 121


def ellipse(x, y, a, b, degrees=0.0):
    """Half axes ``a`` ≥ ``b``; ``degrees`` counter-clockwise on the screen, where y points down."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    angle = np.deg2rad(degrees)
    along = (columns - x) * np.cos(angle) - (rows - y) * np.sin(angle)
    across = (columns - x) * np.sin(angle) + (rows - y) * np.cos(angle)
    return MaskCrop.from_full((along / a) ** 2 + (across / b) ** 2 <= 1)


def measured(crop, **options):
    return measure_cells([crop], **options).iloc[0]


@pytest.mark.parametrize("radius", [12, 20, 40])
def test_discs(radius):
    row = measured(ellipse(60, 61, radius, radius))
    assert row.area_px == pytest.approx(np.pi * radius**2, rel=0.01)
    assert row.perimeter_px == pytest.approx(2 * np.pi * radius, rel=0.025)
    for name in ("major_axis_px", "minor_axis_px", "equivalent_diameter_px"):
        assert row[name] == pytest.approx(2 * radius, rel=0.01)
    assert (row.centroid_x_px, row.centroid_y_px) == pytest.approx((60, 61))
    assert row.eccentricity == pytest.approx(0, abs=0.1)
    assert row.solidity > 0.94


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 110, 135, 179])
def test_ellipses(degrees):
    row = measured(ellipse(60.25, 59.5, 40, 15, degrees))
    assert (row.orientation_deg - degrees + 90) % 180 - 90 == pytest.approx(0, abs=0.5)
    assert 0 <= row.orientation_deg < 180
    assert (row.major_axis_px, row.minor_axis_px) == pytest.approx((80, 30), rel=0.01)
    assert row.eccentricity == pytest.approx(np.sqrt(1 - (15 / 40) ** 2), abs=0.005)
    assert (row.centroid_x_px, row.centroid_y_px) == pytest.approx((60.25, 59.5), abs=0.1)


def test_rectangles():
    row = measured(MaskCrop(7, 30, np.ones((10, 24), bool)))
    assert [row.box_x0_px, row.box_y0_px, row.box_x1_px, row.box_y1_px] == [30, 7, 54, 17]
    assert (row.centroid_x_px, row.centroid_y_px) == (42, 12)
    assert (row.area_px, row.solidity, row.orientation_deg) == (240, 1, 0)
    assert row.perimeter_px == pytest.approx(68, rel=0.1)
    assert row.equivalent_diameter_px == pytest.approx(np.sqrt(240 * 4 / np.pi))
    # Of n equally spaced points the variance is (n² - 1) / 12.
    assert row.major_axis_px == pytest.approx(4 * np.sqrt((24**2 - 1) / 12))
    upright = measured(MaskCrop(7, 30, np.ones((24, 10), bool)))
    assert upright.orientation_deg == 90


def test_solidity_of_an_l():
    corner = np.ones((40, 40), bool)
    corner[:20, 20:] = False
    # The hull leaves half of the missing quarter away.
    assert measured(MaskCrop(0, 0, corner)).solidity == pytest.approx(6 / 7, rel=0.02)


def test_grey_values():
    image = np.zeros((5, 6), np.uint16)
    image[2, 1:4] = 10, 20, 60
    row = measured(MaskCrop(2, 1, np.ones((1, 3), bool)), image=image)
    assert (row.intensity_mean, row.intensity_min, row.intensity_max) == (30, 10, 60)
    assert row.intensity_std == pytest.approx(np.std([10, 20, 60]))
    assert "intensity_mean" not in measured(MaskCrop(2, 1, np.ones((1, 3), bool)))


def test_micrometres_of_square_pixels():
    crop = ellipse(60, 61, 40, 15, 30)
    plain, row = measured(crop), measured(crop, pixel_size=PixelSize(0.5, 0.5))
    assert row.area_um2 == plain.area_px / 4
    for name in ("perimeter", "major_axis", "minor_axis", "equivalent_diameter", "centroid_x", "centroid_y"):
        assert row[f"{name}_um"] == pytest.approx(row[f"{name}_px"] / 2)
        assert row[f"{name}_px"] == plain[f"{name}_px"]


def test_micrometres_of_oblong_pixels():
    """A disc in the specimen, seen through pixels twice as high as wide."""
    row = measured(ellipse(60, 60, 40, 20), pixel_size=PixelSize(0.5, 1.0))
    assert (row.major_axis_um, row.minor_axis_um) == pytest.approx((40, 40), rel=0.01)
    assert row.area_um2 == pytest.approx(np.pi * 20**2, rel=0.01)
    assert row.equivalent_diameter_um == pytest.approx(40, rel=0.01)
    assert (row.centroid_x_um, row.centroid_y_um) == pytest.approx((30, 60))
    assert np.isnan(row.perimeter_um)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_cells_of_a_pixel_or_a_line(shape):
    row = measured(MaskCrop(3, 4, np.ones(shape, bool)), image=np.full((20, 20), 5.0))
    assert row.area_px == np.prod(shape)
    assert row.solidity == 1
    assert row.minor_axis_px == 0
    assert row.intensity_std == 0
    assert np.isfinite(row.astype(float)).all()


def test_columns_and_rows():
    crops = [MaskCrop(0, 0, np.ones((2, 3), bool)), MaskCrop(5, 5, np.ones((4, 4), bool))]
    options = {"image": np.zeros((9, 9)), "pixel_size": PixelSize(1, 1)}
    table = measure_cells(crops, classes=["a", "b"], scores=[0.9, 0.8], **options)
    assert list(table.columns[:3]) == ["label", "class", "score"]
    assert table["label"].tolist() == [1, 2]
    assert table["class"].tolist() == ["a", "b"]
    assert table["area_px"].dtype.kind == "i"
    empty = measure_cells([], classes=[], scores=[], **options)
    assert list(empty.columns) == list(table.columns)
    assert len(empty) == 0


def test_a_crop_need_not_be_tight():
    mask = np.zeros((9, 9), bool)
    mask[3:5, 2:7] = True
    assert measured(MaskCrop(10, 20, mask)).equals(measured(MaskCrop(13, 22, np.ones((2, 5), bool))))


def test_what_cannot_be_measured():
    dot = MaskCrop(0, 8, np.ones((1, 4), bool))
    with pytest.raises(CellSegError, match="outside its image"):
        measure_cells([dot], np.zeros((5, 10)))
    with pytest.raises(CellSegError, match="without pixels"):
        measure_cells([MaskCrop(0, 0, np.zeros((2, 2), bool))])
    with pytest.raises(CellSegError, match="2 classes were given for 1"):
        measure_cells([dot], classes=["a", "b"])
    with pytest.raises(CellSegError, match="0 scores were given for 1"):
        measure_cells([dot], scores=[])
