"""SVG and PDF: each cell is an outline along its pixels' edges, called as in tables, and there is no header."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from cellseg_d2.images.pixel_size import PixelSize
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.style import Style
from tests.inference.segmentations import HEIGHT, WIDTH, difficult_crops, segmentation_of

SVG = "{http://www.w3.org/2000/svg}"
STYLE = Style(by_cell=True, numbers=True, scale_bar=True)


@pytest.fixture
def segmentation():
    return replace(segmentation_of(difficult_crops(), pixel_size=PixelSize(0.5, 0.5)), style=STYLE)


def test_an_svg_has_the_outline_and_the_number_of_each_cell(segmentation, tmp_path):
    [path] = segmentation.save(tmp_path, "svg")
    root = ElementTree.parse(path).getroot()
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (left, top) == (0, 0)
    assert width / height == pytest.approx(WIDTH / HEIGHT), "as the image is, without a header"
    scale = width / WIDTH
    named = {group.get("id"): group for group in root.iter(f"{SVG}g")}
    cells = [named[f"cell-{label}"].find(f"{SVG}path") for label in segmentation.measure()["label"]]
    assert f"cell-{len(segmentation) + 1}" not in named
    for node, crop, color in zip(cells, segmentation.crops, segmentation.colors, strict=True):
        assert "stroke: #{:02x}{:02x}{:02x}".format(*color) in node.get("style")
        numbers = np.array(re.findall(r"-?[\d.]+", node.get("d")), dtype=float).reshape(-1, 2) / scale
        x0, y0, x1, y1 = crop.tight().box
        assert [*numbers.min(axis=0), *numbers.max(axis=0)] == pytest.approx([x0, y0, x1, y1], abs=1e-3)
    for style, texts in ((STYLE, len(cells) + 1), (Style(scale_bar=True), 1), (Style(), 0)):
        [path] = replace(segmentation, style=style).save(tmp_path, "svg")
        groups = [group.get("id", "") for group in ElementTree.parse(path).getroot().iter(f"{SVG}g")]
        assert sum(name.startswith("text_") for name in groups) == texts, "numbers, and the length of the bar"


def test_numbers_are_no_wider_than_their_cells(tmp_path):
    sides = (3, 6, 12)
    crops = [MaskCrop(1, 1 + 15 * i, np.ones((side, side), bool)) for i, side in enumerate(sides)]
    [path] = replace(segmentation_of(crops), style=Style(numbers=True)).save(tmp_path, "svg")
    root = ElementTree.parse(path).getroot()
    scale = float(root.get("viewBox").split()[2]) / WIDTH
    groups = [group for group in root.iter(f"{SVG}g") if group.get("id", "").startswith("text_")]
    assert len(groups) == len(sides)
    for group, side, crop in zip(groups, sides, crops, strict=True):
        drawn = re.findall(r"-?[\d.]+", group.find(f"{SVG}path").get("d"))
        corners = np.array(drawn, dtype=float).reshape(-1, 2) / scale
        assert (corners > (crop.left, crop.top)).all()
        assert (corners < (crop.left + side, crop.top + side)).all()
        assert np.ptp(corners[:, 1]) > 0.3 * min(side, 8), "but not smaller than needed"


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_equal_content_is_an_equal_file(segmentation, tmp_path, kind):
    first, second = (segmentation.save(tmp_path / place, kind)[0].read_bytes() for place in "ab")
    assert first == second
    assert first.startswith(b"%PDF-" if kind == "pdf" else b"<?xml")
    plain = replace(segmentation, style=Style()).save(tmp_path / "c", kind)[0].read_bytes()
    assert plain != first


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_without_cells_and_without_an_image(tmp_path, kind):
    nothing = replace(segmentation_of([]), image=None)
    assert nothing.save(tmp_path, kind)[0].stat().st_size > 0
