"""Outlines, colours and strips on shapes whose borders are known."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, kaggle_to_crop
from cellseg_d2.visualization.overlays import (
    PALETTE,
    STRIP_BACKGROUND,
    TYPE_COLORS,
    distinct_colors,
    draw_outlines,
    overlay_picture,
    place_of_number,
    save_image,
    text_strip,
    to_display,
    type_color,
    type_colors,
)
from tests.shapes import arc

RED = (255, 0, 0)
GREY = np.full((20, 30), 7, np.uint8)  # of one value: shown as 128


def disk(radius, top=0, left=0):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return MaskCrop(top, left, x**2 + y**2 <= radius**2)


def where(picture, color):
    return (picture == np.array(color)).all(axis=2)


def test_imports_neither_torch_nor_detectron2():
    code = (
        "import sys\n"
        "from cellseg_d2.visualization import comparison, curves, overlays\n"
        "bad = {'torch', 'detectron2', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("upscale", [1, 2, 3])
def test_outline_of_a_rectangle(upscale):
    crop = MaskCrop(5, 10, np.ones((6, 8), bool))
    picture = draw_outlines(GREY, [crop], RED, thickness=1, upscale=upscale)
    expected = np.zeros((20 * upscale, 30 * upscale), bool)
    expected[5 * upscale : 11 * upscale, 10 * upscale : 18 * upscale] = True
    expected[5 * upscale + 1 : 11 * upscale - 1, 10 * upscale + 1 : 18 * upscale - 1] = False
    assert picture.dtype == np.uint8
    assert picture.shape == (20 * upscale, 30 * upscale, 3)
    assert np.array_equal(where(picture, RED), expected)
    assert (picture[~expected] == 128).all()


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(1, 3), st.integers(1, 2))
def test_outline_is_the_border_inside_the_mask(mask, thickness, upscale):
    picture = draw_outlines(GREY, [MaskCrop(3, 4, mask)], RED, thickness=thickness, upscale=upscale)
    full = np.kron(MaskCrop(3, 4, mask).to_full(20, 30), np.ones((upscale, upscale), bool))
    steps = ndimage.distance_transform_cdt(np.pad(full, 1), metric="taxicab")[1:-1, 1:-1]
    assert np.array_equal(where(picture, RED), full & (steps <= thickness))


def test_outline_is_closed_at_the_edge_of_the_image():
    picture = draw_outlines(GREY, [MaskCrop(0, 0, np.ones((20, 30), bool))], RED, thickness=1, upscale=1)
    expected = np.ones((20, 30), bool)
    expected[1:-1, 1:-1] = False
    assert np.array_equal(where(picture, RED), expected)


def test_fill_blends_and_leaves_outlines_alone():
    picture = draw_outlines(GREY, [MaskCrop(2, 2, np.ones((5, 5), bool))], RED, thickness=1, fill=0.5, upscale=1)
    assert picture[4, 4].tolist() == [192, 64, 64]  # halfway between 128 and red
    assert picture[2, 2].tolist() == [255, 0, 0]
    assert picture[0, 0].tolist() == [128, 128, 128]


def test_one_fill_per_cell():
    crops = [MaskCrop(2, 2, np.ones((5, 5), bool)), MaskCrop(2, 12, np.ones((5, 5), bool))]
    picture = draw_outlines(GREY, crops, RED, thickness=1, fill=np.array([0.0, 1.0]), upscale=1)
    assert picture[4, 4].tolist() == [128, 128, 128]
    assert picture[4, 14].tolist() == [255, 0, 0]


def test_a_small_cell_stays_visible_on_a_large_one():
    crops = [MaskCrop(8, 8, np.ones((3, 3), bool)), MaskCrop(0, 0, np.ones((20, 30), bool))]
    picture = draw_outlines(GREY, crops, [(255, 0, 0), (0, 0, 255)], thickness=1, fill=0.9, upscale=1)
    assert picture[8, 8].tolist() == [255, 0, 0]
    assert picture[9, 9, 0] > picture[9, 9, 2]


def test_empty_masks_and_no_masks_change_nothing():
    picture = draw_outlines(GREY, [MaskCrop(0, 0, np.zeros((0, 0), bool))], upscale=1, labels=["x"])
    assert (picture == 128).all()
    assert (draw_outlines(GREY, [], upscale=1) == 128).all()


def test_labels_are_written_at_the_middle():
    crop = disk(9, 0, 5)
    plain, labelled = (draw_outlines(GREY, [crop], RED, upscale=4, labels=names) for names in (None, ["7"]))
    rows, columns = np.nonzero((plain != labelled).any(axis=2))
    assert len(rows) > 20
    assert abs(rows.mean() - 9.5 * 4) < 4
    assert abs(columns.mean() - 14.5 * 4) < 4


@pytest.mark.parametrize("half_angle", [0.8, 1.6, 2.6, np.pi])
def test_a_number_is_on_its_own_cell(half_angle):
    """Not on what a crescent or a ring encloses, which may be another cell."""
    mask = arc(60, 30, 30, 22, 7, half_angle)
    x, y = place_of_number(MaskCrop(0, 0, mask))
    assert mask[int(y), int(x)]
    assert abs(np.hypot(y - 30, x - 30) - 22) < 2, "in its middle"
    moved = place_of_number(MaskCrop(40, 3, mask))
    assert moved == (x + 3, y + 40)
    assert place_of_number(disk(9, 0, 5)) == (14.5, 9.5)


@pytest.mark.parametrize("box", [(-1, 0), (0, -1), (18, 0), (0, 28)])
def test_a_mask_outside_the_image_is_an_error(box):
    with pytest.raises(CellSegError, match="reaches outside its image of 30 × 20"):
        draw_outlines(GREY, [MaskCrop(*box, np.ones((3, 3), bool))])


def test_wrong_numbers_are_errors():
    crops = [disk(2), disk(2, 10, 10)]
    with pytest.raises(CellSegError, match="colours of shape"):
        draw_outlines(GREY, crops, [RED] * 3)
    with pytest.raises(CellSegError, match="3 labels were given for 2 cells"):
        draw_outlines(GREY, crops, labels=["a", "b", "c"])
    with pytest.raises(CellSegError, match="1 cell types were given for 2 cells"):
        overlay_picture(GREY, crops, ["cort"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_display_stretches_to_the_full_range(dtype):
    ramp = np.tile(np.linspace(100, 200, 256).astype(dtype), (4, 1))
    shown = to_display(ramp)
    assert shown.shape == (4, 256, 3)
    assert shown.dtype == np.uint8
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, -1].tolist() == [255, 255, 255]
    assert (np.diff(shown[0, :, 0].astype(int)) >= 0).all()
    assert shown[0, 128].tolist() == pytest.approx([128] * 3, abs=3)


def test_display_shows_a_single_bright_pixel_and_keeps_hues():
    image = np.zeros((50, 50), np.uint16)
    image[7, 9] = 40000
    assert to_display(image)[7, 9].tolist() == [255, 255, 255]
    colored = np.zeros((10, 10, 3), np.uint16)
    colored[:5, :, 1] = 1000
    assert to_display(colored)[0, 0].tolist() == [0, 255, 0]


def test_display_survives_what_is_not_finite():
    image = np.arange(100, dtype=np.float64).reshape(10, 10)
    image[0, 0], image[9, 9] = np.nan, np.inf
    assert to_display(image)[0, 0].tolist() == [0, 0, 0]
    assert to_display(image)[9, 9].tolist() == [255, 255, 255]


@pytest.mark.parametrize("shape", [(5,), (4, 4, 2), (0, 3), (2, 4, 4, 3)])
def test_display_refuses_other_shapes(shape):
    with pytest.raises(CellSegError, match="cannot be shown"):
        to_display(np.zeros(shape, np.uint8))


def test_touching_cells_get_different_colors():
    tiles = [MaskCrop(5 * y, 5 * x, np.ones((5, 5), bool)) for y in range(8) for x in range(8)]
    colors = distinct_colors(tiles).reshape(8, 8, 3)
    assert (colors[1:] != colors[:-1]).any(axis=2).all()
    assert (colors[:, 1:] != colors[:, :-1]).any(axis=2).all()
    assert {tuple(color) for color in colors.reshape(-1, 3).tolist()} <= set(PALETTE)
    assert len({tuple(color) for color in distinct_colors([disk(3)] * len(PALETTE)).tolist()}) == len(PALETTE)
    assert distinct_colors([]).shape == (0, 3)


def test_types_have_fixed_and_different_colors():
    names = ["cort", "neuron", "astro", "shsy5y", "glia", "cort"]
    colors = [tuple(color) for color in type_colors(names).tolist()]
    assert colors[0] == colors[5] == TYPE_COLORS["cort"]
    assert len(set(colors)) == 5
    assert colors[1] == type_color("neuron", ["glia", "neuron"])
    assert type_colors([]).shape == (0, 3)


def test_overlay_names_the_types_and_puts_the_picture_below():
    crops = [disk(2, 1, 1), disk(2, 10, 10)]
    picture = overlay_picture(np.zeros((200, 300), np.uint8), crops, ["cort", "astro"], "a.png")
    strip = len(picture) - 400
    assert picture.shape[1] == 600
    assert 0 < strip < 60
    assert where(picture[:strip], TYPE_COLORS["cort"]).sum() > 40  # the patch in the legend
    assert where(picture[strip:], TYPE_COLORS["astro"])[20:30, 20:30].any()
    assert not where(picture[strip:], TYPE_COLORS["astro"])[:16, :16].any()
    same = draw_outlines(np.zeros((200, 300), np.uint8), crops, type_colors(["cort", "astro"]), title="a.png")
    assert np.array_equal(same[-400:], picture[-400:])
    assert len(same) > 400


def test_strip_wraps_and_shortens():
    one = text_strip(800, "title", [("first", RED)], text_size=16)
    assert one.shape[1] == 800
    assert where(one, RED).sum() == 13 * 13
    many = text_strip(800, "title", [("a rather long entry", RED)] * 12, text_size=16)
    assert len(many) > 2 * len(one)
    assert where(many, RED).sum() == 12 * 13 * 13
    long = text_strip(200, "a title much too long for so narrow a strip, which must end before its edge", text_size=16)
    assert (long[:, -6:] == STRIP_BACKGROUND).all()


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "a\udcffb"])
def test_a_strip_shows_any_name_on_one_line(name):
    assert text_strip(800, name, [(name, RED)]).shape == text_strip(800, "a", [("b", RED)]).shape


def test_save_image_is_whole_or_not_at_all(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    save_image(tmp_path / "new" / "a.png", picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    with pytest.raises(CellSegError, match=r"does not end in \.png"):
        save_image(tmp_path / "a.jpg", picture)
    (tmp_path / "file").write_text("")
    with pytest.raises(CellSegError, match="cannot be written"):
        save_image(tmp_path / "file" / "a.png", picture)


def test_every_real_cell_is_outlined(shared_data):
    rows = pd.read_csv(shared_data / "sartorius" / "train.csv")
    image_id = rows["id"].value_counts().idxmax()
    crops = [kaggle_to_crop(text, 520, 704) for text in rows.loc[rows["id"] == image_id, "annotation"]]
    image = np.asarray(Image.open(shared_data / "sartorius" / "train" / f"{image_id}.png").convert("L"))
    picture = draw_outlines(image, crops, (1, 255, 2), thickness=1)
    drawn = where(picture, (1, 255, 2))
    inside = np.zeros((520, 704), bool)
    for crop in crops:
        inside[crop.slices] |= crop.mask
        enlarged = np.kron(crop.mask, np.ones((2, 2), bool))
        region = drawn[2 * crop.top :, 2 * crop.left :][: enlarged.shape[0], : enlarged.shape[1]]
        assert region[enlarged & ~ndimage.binary_erosion(enlarged)].all()
    assert not drawn[~np.kron(inside, np.ones((2, 2), bool))].any()
    assert len(crops) > 300
