"""Pictures of errors: colours where the cells are, shares and gains as they were computed."""

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.metrics.error_report import ErrorReport
from cellseg_d2.metrics.error_types import find_errors
from cellseg_d2.visualization.error_plots import (
    PREDICTED_COLORS,
    TRUE_COLORS,
    error_panel,
    plot_corrections,
    plot_groups,
    plot_kinds,
)
from tests.shapes import box

HEIGHT, WIDTH = 60, 90


TRUE = [box(0, 0, 10, 10), box(20, 0, 10, 10), box(30, 0, 10, 10), box(60, 0, 20, 10), box(0, 40, 10, 10)]
PREDICTED = [box(0, 0, 10, 9), box(20, 0, 20, 10), box(60, 0, 10, 10), box(70, 0, 10, 10), box(40, 40, 10, 10)]
TRUE_EXPECTED = ["found", "merged", "merged", "split", "missed"]
PREDICTED_EXPECTED = ["hit", "merging", "fragment", "fragment", "spurious"]


def errors_of(predicted, true):
    return find_errors(*([crop_to_coco(crop, HEIGHT, WIDTH) for crop in side] for side in (predicted, true)))


@pytest.fixture
def report():
    images = {"a": errors_of(PREDICTED, TRUE), "b": errors_of([], TRUE[:1]), "c": errors_of([], [])}
    return ErrorReport(images, {"a": "astro", "b": "cort", "c": "mine"})


def test_a_panel_shows_each_cell_in_its_colour():
    image = np.full((HEIGHT, WIDTH), 7, np.uint16)
    panel = error_panel(image, TRUE, PREDICTED, errors_of(PREDICTED, TRUE), "name", upscale=1, thickness=1)
    body = panel[-HEIGHT:]
    gap = (body.shape[1] - 3 * WIDTH) // 2
    plain, truth, prediction = (body[:, i * (WIDTH + gap) : i * (WIDTH + gap) + WIDTH] for i in range(3))
    assert (plain == 128).all()
    for picture, crops, kinds, colors in (
        (truth, TRUE, TRUE_EXPECTED, TRUE_COLORS),
        (prediction, PREDICTED, PREDICTED_EXPECTED, PREDICTED_COLORS),
    ):
        for crop, kind in zip(crops, kinds, strict=True):
            assert tuple(picture[crop.top, crop.left]) == colors[kind], kind
        assert (picture[50:, 60:] == 128).all()


def test_columns_stay_level_when_only_one_legend_is_long():
    errors = errors_of(PREDICTED, [])
    panel = error_panel(np.zeros((HEIGHT, WIDTH), np.uint8), [], PREDICTED, errors, "name", upscale=1)
    assert (panel[-HEIGHT:, :WIDTH] == 128).all()
    assert not (panel[-HEIGHT - 1, :WIDTH] == 128).any()


def test_a_panel_needs_the_masks_that_the_errors_are_about():
    with pytest.raises(CellSegError, match="1 true and 0 predicted"):
        error_panel(np.zeros((HEIGHT, WIDTH), np.uint8), TRUE[:1], [], errors_of([], TRUE), "name")


def test_a_panel_of_nothing():
    panel = error_panel(np.zeros((HEIGHT, WIDTH), np.uint8), [], [], errors_of([], []), "name")
    assert panel.shape[1] >= 3 * 2 * WIDTH


@pytest.fixture
def drawn(monkeypatch):
    """Texts and widths of horizontal bars."""
    seen = {"texts": [], "barh": []}
    text, barh = matplotlib.axes.Axes.text, matplotlib.axes.Axes.barh

    def spy_text(self, x, y, s, *args, **kwargs):
        seen["texts"].append(s)
        return text(self, x, y, s, *args, **kwargs)

    def spy_barh(self, y, width, *args, **kwargs):
        seen["barh"].append(width)
        return barh(self, y, width, *args, **kwargs)

    monkeypatch.setattr(matplotlib.axes.Axes, "text", spy_text)
    monkeypatch.setattr(matplotlib.axes.Axes, "barh", spy_barh)
    return seen


def test_shares_by_type(report, drawn, tmp_path):
    plot_kinds(report, tmp_path / "kinds.png")
    assert {"20%", "40%", "100%", "none"} <= set(drawn["texts"])  # astro: 1, 0, 2, 1, 1 of 5; "mine" has no cell
    # Each bar that is there is whole: astro, cort and all on the side of the truth, astro and all on the other.
    assert sum(drawn["barh"]) == pytest.approx(5)
    assert Image.open(tmp_path / "kinds.png").size[0] > 1000


@pytest.mark.parametrize("by", ["size", "crowding"])
def test_groups(report, drawn, tmp_path, by):
    plot_groups(report, by, tmp_path / "groups.png")
    picture = np.asarray(Image.open(tmp_path / "groups.png").convert("RGB"))
    assert picture.std() > 10
    assert sum(int(text) for text in drawn["texts"] if text.isdigit()) == 6  # the numbers of cells above the bars


def test_gains(report, drawn, tmp_path):
    plot_corrections(report, tmp_path / "gains.png")
    gain = report.corrected["missed"] - report.score.mean
    assert gain > 0
    assert f"+{gain:.3f}" in drawn["texts"]
    assert (tmp_path / "gains.png").exists()


@pytest.mark.parametrize("predicted", [[], PREDICTED])
def test_images_without_true_cells(predicted, tmp_path):
    report = ErrorReport({"a": errors_of(predicted, [])}, {})
    plot_kinds(report, tmp_path / "kinds.png")
    plot_groups(report, "size", tmp_path / "size.png")
    plot_groups(report, "crowding", tmp_path / "crowding.png")
    plot_corrections(report, tmp_path / "gains.png")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_picture_that_cannot_be_written(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CellSegError, match="cannot be written"):
        plot_kinds(report, tmp_path / "file" / "kinds.png")
