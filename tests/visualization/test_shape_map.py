"""The map of shapes and the sheet of implausible ones show what they say."""

import numpy as np
import pytest
from PIL import Image

from cellseg_d2.shape_space.plane import Plane
from cellseg_d2.shape_space.ranking import rank_cells
from cellseg_d2.visualization.figures import save_figure
from cellseg_d2.visualization.shape_map import SHAPES, rank_sheet, shape_map
from tests.shape_space.drawn import ellipse, table, untrained_space


@pytest.fixture(scope="module")
def untrained():
    return untrained_space()


def test_map_has_the_decoded_grid_and_all_cells(untrained, tmp_path):
    points = np.random.default_rng(1).normal(size=(40, 2))
    plane = Plane.through(untrained.references.latents)
    figure = shape_map(untrained, plane, points, ["a"] * 30 + ["b"] * 10, "Shapes")
    left, right = figure.axes
    mosaic = left.images[0].get_array()
    assert mosaic.shape == (SHAPES * 32, SHAPES * 32, 3)
    # Rows go down in the picture, y goes up on the plane: the first shape lies at the highest y and the lowest x.
    x0, x1, _, y1 = left.images[0].get_extent()
    step = (x1 - x0) / SHAPES
    corner = untrained.pictures(plane.lift(np.array([[x0 + step / 2, y1 - step / 2]])))[0]
    assert np.abs(255 - corner * (255 - 27) - mosaic[:32, :32, 0]).max() <= 1
    assert len(right.collections[0].get_offsets()) == 40
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["a (30)", "b (10)"]
    save_figure(figure, tmp_path / "map.png")
    assert Image.open(tmp_path / "map.png").size[0] > 1000
    assert len(shape_map(untrained, plane, points[:1], ["a"], "One").axes[1].collections[0].get_offsets()) == 1


def test_sheet_shows_each_mask_beside_what_the_space_makes_of_it(untrained):
    rng = np.random.default_rng(2)
    cells = table({"cell": [ellipse(rng) for _ in range(5)]})
    ranked = rank_cells(untrained, cells).head(3)
    masks = [cells.crops[i].mask for i in ranked.index]
    sheet = rank_sheet(untrained, ranked, masks, "Worst", columns=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == pytest.approx(2 * 2 * 96, abs=8)
    assert sheet.shape[0] > 2 * 96
