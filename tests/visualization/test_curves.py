"""Reading of losses and scores as runs leave them behind, smoothing, and the pictures."""

import json

import matplotlib.axes
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.visualization.curves import plot_score_by_type, plot_training, read_loss_csv, read_scores, smooth

HEADER = "iteration,total_loss,loss_cls,loss_mask,lr,data_time,time\n"


def row(iteration, loss=1.0):
    return f"{iteration},{loss},{loss / 4},{loss / 2},0.001,0.01,0.5\n"


@pytest.fixture
def csv(tmp_path):
    def write(text):
        (tmp_path / "losses.csv").write_text(text)
        return tmp_path / "losses.csv"

    return write


@pytest.fixture
def drawn(monkeypatch):
    """Everything that is drawn as lines and written as text into axes."""
    seen = {"lines": {}, "texts": []}
    plot, text, annotate = (getattr(matplotlib.axes.Axes, name) for name in ("plot", "text", "annotate"))

    def spy_plot(self, *args, **kwargs):
        lines = plot(self, *args, **kwargs)
        seen["lines"][kwargs.get("label", args[-1] if isinstance(args[-1], str) else "raw")] = lines[0].get_xydata()
        return lines

    def spy_text(self, x, y, s, **kwargs):
        seen["texts"].append(s)
        return text(self, x, y, s, **kwargs)

    def spy_annotate(self, words, *args, **kwargs):
        seen["texts"].append(words)
        return annotate(self, words, *args, **kwargs)

    monkeypatch.setattr(matplotlib.axes.Axes, "plot", spy_plot)
    monkeypatch.setattr(matplotlib.axes.Axes, "text", spy_text)
    monkeypatch.setattr(matplotlib.axes.Axes, "annotate", spy_annotate)
    return seen


def test_a_half_written_last_line_is_left_out(csv):
    frame = read_loss_csv(csv(HEADER + row(0, 3.0) + row(1, 2.5) + "2,2.2,0.5"))
    assert frame["iteration"].tolist() == [0, 1]
    assert frame["total_loss"].tolist() == [3.0, 2.5]
    # Complete in the number of fields, but the last digits may still be missing.
    assert read_loss_csv(csv(HEADER + row(0) + row(1).strip()))["iteration"].tolist() == [0]


def test_what_a_resumed_run_repeats_counts_as_written_last(csv):
    before = "".join(row(i, 9.0) for i in range(10))
    after = HEADER + "".join(row(i, 1.0) for i in range(4, 7))
    frame = read_loss_csv(csv(HEADER + before + after))
    assert frame["iteration"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert frame["total_loss"].tolist() == [9.0] * 4 + [1.0] * 3


def test_what_is_not_finite_becomes_nan(csv):
    frame = read_loss_csv(csv(HEADER + row(0, float("nan")) + row(1, float("inf")) + "2,,,,,,\n" + row(3, 2.0)))
    assert frame["total_loss"].isna().tolist() == [True, True, True, False]


@pytest.mark.parametrize("text", ["", "iteration,tot", HEADER])
def test_no_rows_yet(csv, text):
    frame = read_loss_csv(csv(text))
    assert len(frame) == 0
    assert {"iteration", "total_loss"} <= set(frame.columns)


def test_unusable_files_are_errors(csv, tmp_path):
    with pytest.raises(CellSegError, match="has no column 'total_loss'; its columns are iteration, loss"):
        read_loss_csv(csv("iteration,loss\n1,2\n"))
    with pytest.raises(CellSegError, match="cannot be read"):
        read_loss_csv(tmp_path / "absent.csv")


def test_scores_from_detectron2s_lines(tmp_path):
    path = tmp_path / "metrics.json"
    assert len(read_scores(path)) == 0
    records = [
        {"iteration": 19, "total_loss": 2.0},
        {"iteration": 49, "competition/mean": 0.1, "competition/cort": 0.3, "bbox/AP": 7.0},
        {"iteration": 99, "competition/mean": float("nan"), "competition/cort": None},
        {"competition/mean": 0.9},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in records) + "[1]\nno json\n" + '{"iteration": 149, "compet')
    scores = read_scores(path)
    assert list(scores.columns) == ["iteration", "mean", "cort"]
    assert scores["iteration"].tolist() == [49, 99]
    assert scores["mean"].tolist()[0] == 0.1
    assert scores.loc[1, ["mean", "cort"]].isna().all()


def test_smoothing_is_a_bias_corrected_moving_average():
    values = np.array([4.0, 2.0, 7.0, 1.0])
    span = 3.0
    keep = (span - 1) / (span + 1)
    expected = [np.average(values[: i + 1], weights=keep ** np.arange(i, -1, -1)) for i in range(4)]
    assert smooth(pd.Series(values), span).tolist() == pytest.approx(expected)
    assert smooth(pd.Series([5.0] * 6), 100).tolist() == pytest.approx([5.0] * 6)  # no pull towards zero at the start
    assert smooth(pd.Series([4.0, np.nan, 2.0]), span).tolist()[2] == pytest.approx(expected[1])


def test_the_picture_holds_losses_scores_and_the_best(csv, tmp_path, drawn):
    path = csv(HEADER + "".join(row(i, 8.0 / (1 + i)) for i in range(100)))
    scores = [(24, 0.2), (49, 0.31), (74, 0.25)]
    lines = [
        {"iteration": i, "competition/mean": s, "competition/cort": s + 0.1, "competition/tp50": 500.0}
        for i, s in scores
    ]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plot_training(path, tmp_path / "metrics.json", tmp_path / "plots" / "curves.png")
    with Image.open(tmp_path / "plots" / "curves.png") as picture:
        assert picture.size == (1540, 792)
    labels = " ".join(drawn["lines"])
    assert all(name in labels for name in ("total", "cls", "mask", "mean", "cort"))
    assert "tp50" not in labels
    assert "best 0.310\nat 49" in drawn["texts"]
    assert drawn["lines"]["*"].tolist() == [[49, 0.31]]
    assert drawn["lines"]["cort  0.350"].tolist() == [[i, s + 0.1] for i, s in scores]
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["curves.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no data yet"),
        (HEADER, "no data yet"),
        (HEADER + row(0, float("nan")), "no finite loss yet"),
        (HEADER + row(0), "no validation score yet"),
        (HEADER + row(0) + row(1, float("nan")) + row(2), "1 iteration without a finite loss"),
        (HEADER + row(0, 0.0) + row(1, -1.0), "no validation score yet"),
        ("iteration,total_loss\n0,1\n1,2\n", "no validation score yet"),
    ],
)
def test_little_or_odd_data_is_drawn_and_said(csv, tmp_path, drawn, text, said):
    plot_training(csv(text), tmp_path / "none.json", tmp_path / "curves.png")
    assert said in drawn["texts"]
    assert Image.open(tmp_path / "curves.png").size == (1540, 792)


def test_a_picture_that_cannot_be_written_is_an_error(csv, tmp_path):
    path = csv(HEADER + row(0))
    with pytest.raises(CellSegError, match="cannot be written"):
        plot_training(path, tmp_path / "none.json", path / "curves.png")


def test_scores_by_type(tmp_path, drawn):
    plot_score_by_type({"cort": [0.2, 0.4], "astro": [0.1], "shsy5y": []}, tmp_path / "types.png")
    assert {"0.300", "0.100"} <= set(drawn["texts"])
    assert Image.open(tmp_path / "types.png").size[1] == 550
    with pytest.raises(CellSegError, match="no scores to draw"):
        plot_score_by_type({"cort": []}, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
