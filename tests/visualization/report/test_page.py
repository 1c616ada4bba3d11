"""The page says what the metrics say, has every section, and takes nothing from outside for its own text."""

import base64
import io
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.predictions.submission import write_submission
from cellseg_d2.visualization.report.cells import ReportCells, gather_cells
from cellseg_d2.visualization.report.charts import size_figures
from cellseg_d2.visualization.report.config_diff import differences
from cellseg_d2.visualization.report.page import render_report, report_figures
from cellseg_d2.visualization.report.run_folder import read_run
from cellseg_d2.visualization.report.shapes import RARE, gather_shapes
from tests.shape_space.drawn import untrained_space

SIZE = 96
SECTIONS = ("scores", "errors", "training", "images", "cells", "table", "run")
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Visible text, tables by id as rows of texts, and attributes of all tags of a page."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tags, self.text, self._table, self._raw = {}, [], [], None, False
        self.feed(html)
        self.text = " ".join(" ".join(self.text).split())
        self.charts = [attributes for tag, attributes in self.tags if tag == "svg"]
        self.payload = json.loads(re.search(r'id="payload">(.*?)</script>', html, re.S)[1])

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._raw = tag in ("script", "style")
        if tag == "table":
            self._table = self.tables[dict(attributes).get("id", "")] = []
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th") and self._table:
            self._table[-1].append("")

    def handle_endtag(self, tag):
        self._raw = False
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._raw:
            return
        self.text.append(data)
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip()

    def rows(self, table):
        head, *rows = self.tables[table]
        return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def drawn(place, run=None, cells=None):
    """The axes of a section's charts by their titles."""
    types = cells.cell_types if cells else ["cort"]
    figures = report_figures(run, cells, types)[place]
    return {axes.get_title(loc="left"): axes for figure in figures for axes in figure.axes}


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    rows = [f"{i},{5 - i / 100},{1 + i / 500},0.00{i % 9 + 1},0.1,0.9" for i in range(300)]
    (folder / "losses.csv").write_text("\n".join(["iteration,total_loss,loss_mask,lr,data_time,time", *rows]) + "\n")
    scores = [{"iteration": i, "competition/mean": m, "competition/cort": m / 2} for i, m in ((99, 0.2), (199, 0.35))]
    scores.append({"iteration": 299, "competition/mean": 0.31, "competition/cort": 0.1, "competition/tp50": 7})
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, scores)) + "\n")
    record = {
        "command": f"train_net.py --config-file {EVIL}",
        "started": "2026-01-02T03:04:05+00:00",
        "seed": 7,
        "weights": "",
        "versions": {"torch": "9.8.7", "fvcore": None},
        "machine": {"system": "Linux", "processor": "x86_64", "device": "cpu"},
        "datasets": {"discs_val": {"json_file": "d/instances_val.json", "sha256": "ab" * 32, "images": 4, "cells": 15}},
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text("SOLVER:\n  BASE_LR: 0.5\n  MAX_ITER: 300\n")
    return folder


def test_numbers_are_those_of_the_metrics(discs, scored):
    *_, score = discs
    page = Page(render_report(cells=scored))
    for name, part in {"all": score, **score.by_type}.items():
        row = page.rows("score-table")[name]
        assert row["Score"] == f"{part.mean:.3f}"
        assert [row[key] for key in ("TP", "FP", "FN")] == [str(part.tp), str(part.fp), str(part.fn)]
        assert row["Precision"] == f"{part.precision:.3f}"
        assert row["Recall"] == f"{part.recall:.3f}"
    images = page.rows("image-table")
    assert list(images) == sorted(score.per_image, key=lambda name: (score.per_image[name], name)), "worst first"
    for name, own in score.images.items():
        assert images[name]["Score"] == f"{own.score:.3f}"
        assert [images[name][key] for key in ("True", "Predicted", "TP")] == [
            str(n) for n in (own.true, own.predicted, own.tp[0])
        ]
    lines = lines_of(drawn("scores", cells=scored)["Score by IoU threshold"])
    assert lines.keys() == {"all", "astro", "cort"}
    for name, part in {"all": score, **score.by_type}.items():
        at, values = lines[name].get_data()
        assert list(values) == list(part.per_threshold.values())
        assert at.tolist() == pytest.approx([float(threshold) for threshold in part.per_threshold])
    assert len(page.charts) == 5
    assert f"Score {score.mean:.3f} on 4 images: 14 cells predicted, 15 true." in page.text


def test_counts_and_sizes_are_those_of_the_masks(discs, scored):
    _, true, predicted, _ = discs
    charts = drawn("counts", cells=scored)
    points = {
        url.removeprefix("#picture:"): tuple(place)
        for series in charts["Cells per image"].collections
        for url, place in zip(series.get_urls(), series.get_offsets().tolist(), strict=True)
    }
    assert points == {name: (len(true[name]), len(predicted[name])) for name in true}
    bars = {bar.get_label(): bar.get_data() for bar in charts["Cell area: astro"].patches}
    assert bars.keys() == {"true", "predicted"}
    for side, crops in (("true", true), ("predicted", predicted)):
        areas = [crop.area for name in ("small", "half") for crop in crops[name]]
        values, edges, _ = bars[side]
        assert sum(values) == len(areas)
        place = next(i for i in range(len(edges) - 1) if edges[i] <= areas[0] < edges[i + 1])
        assert values[place] == sum(edges[place] <= area < edges[place + 1] for area in areas)


def test_pictures_have_the_images_and_their_outlines(discs, scored):
    folder, true, *_ = discs
    page = Page(render_report(cells=scored))
    assert set(page.payload["pictures"]) == set(true)
    shown = page.payload["pictures"]["half"]
    kind, data = shown["src"].split(",")
    assert kind == "data:image/webp;base64"
    decoded = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), dtype=float)
    original = cv2.imread(str(folder / "images" / "half.png"), cv2.IMREAD_GRAYSCALE)
    assert np.corrcoef(decoded.ravel(), original.ravel())[0, 1] > 0.9
    counts = {layer: path.count("M") for layer, path in shown["layers"].items()}
    assert counts == {"found": 2, "missed": 3, "hit": 2, "false": 1}


def test_map_of_shapes_has_the_cells_that_are_not_cut(discs, scored):
    _, _, predicted, _ = discs
    whole = [crop for crops in predicted.values() for crop in crops if not crop.is_cut(SIZE, SIZE)]
    shapes = gather_shapes(untrained_space(), scored)
    assert shapes.cells == len(whole) < sum(map(len, predicted.values()))
    kind, data = shapes.picture.split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size[0] > 1000
    values = untrained_space().plausibilities([crop.mask for crop in whole])
    assert shapes.rare == np.count_nonzero(values < RARE)
    text = render_report(cells=scored, shapes=shapes)
    assert shapes.picture in text
    assert f"Each of the {len(whole)} predicted cells" in text
    assert "<h3>Shapes</h3>" not in render_report(cells=scored)
    assert gather_shapes(untrained_space(), replace(scored, images=[])) is None


def test_only_so_many_pictures_and_the_rest_is_said(scored):
    page = Page(render_report(cells=scored, max_images=2, image_width=50))
    worst = list(page.rows("image-table"))[:2]
    assert list(page.payload["pictures"]) == worst
    assert "2 of 4 images are shown, those with the lowest scores; 2 are not" in page.text
    assert len(page.rows("image-table")) == 4
    source = page.payload["pictures"][worst[0]]["src"].split(",")[1]
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (50, 50)


def test_training(run_folder):
    run = read_run(run_folder)
    page = Page(render_report(run, differences=differences(run.config, {"SOLVER": {"BASE_LR": 0.1, "MAX_ITER": 300}})))
    charts = drawn("training", run)
    assert charts.keys() == {"Training loss", "Validation score", "Learning rate", "Seconds per iteration"}
    [total] = [line for name, line in lines_of(charts["Training loss"]).items() if name.startswith("total")]
    assert total.get_xdata().tolist() == list(range(300))
    raw = next(line for line in charts["Training loss"].lines if line.get_label().startswith("_"))
    assert raw.get_ydata().tolist() == pytest.approx([5 - i / 100 for i in range(300)])
    assert raw.get_rasterized(), "thousands of points are pixels"
    [rate] = charts["Learning rate"].lines
    assert rate.get_ydata()[:9].tolist() == [round(0.001 * i, 3) for i in range(1, 10)]
    score = charts["Validation score"]
    assert list(lines_of(score)) == ["mean  0.310", "cort  0.100"]
    assert [text.get_text() for text in score.texts] == ["best 0.350\nat 199"]
    assert "best 0.350 at 199" in page.text
    assert len(page.charts) == 1
    assert "Trained for 300 iterations. Best validation score 0.350, at iteration 199." in page.text
    for text in ("2026-01-02T03:04:05", "torch 9.8.7", "Linux · x86_64 · cpu", "discs_val", "abababababab…"):
        assert text in page.text
    assert page.rows("differences") == {"SOLVER.BASE_LR": {"Key": "SOLVER.BASE_LR", "Base": "0.1", "This run": "0.5"}}


def test_sections_without_content_are_left_out_of_the_page_and_its_menu(run_folder, discs, scored):
    folder, *_ = discs
    bare = gather_cells(folder / "out")
    for html, expected, sentences in (
        (render_report(read_run(run_folder)), ["training", "run"], []),
        (render_report(cells=scored), [name for name in SECTIONS if name != "training"], []),
        (render_report(read_run(run_folder), scored), SECTIONS, []),
        (
            render_report(cells=bare),
            ["cells", "table", "run"],
            ["No ground truth was given, so nothing is scored.", "14 cells predicted in 4 images."],
        ),
    ):
        page = Page(html)
        found = [attributes["id"] for tag, attributes in page.tags if tag == "section" and "id" in attributes]
        assert found == list(expected)
        links = [attributes["href"] for tag, attributes in page.tags if tag == "a" and "href" in attributes]
        assert [link for link in links if link.startswith("#")] == [f"#{name}" for name in expected]
        for sentence in sentences:
            assert sentence in page.text


def test_predictions_without_truth(discs):
    folder, _, predicted, _ = discs
    cells = gather_cells(folder / "out" / "submission.csv", images=[folder / "images"])
    page = Page(render_report(cells=cells))
    assert [image.predicted_count for image in cells.images] == [5, 5, 3, 1], "most cells first"
    assert page.payload["pictures"]["half"]["layers"].keys() == {"plain"}
    assert page.rows("image-table")["small"] == {"Image": "small", "Predicted": "5"}, "no column without content"
    # Areas are the same whether the size of the images is known or not.
    areas = {image.name: image.predicted_areas.tolist() for image in gather_cells(folder / "out").images}
    assert areas == {image.name: image.predicted_areas.tolist() for image in cells.images}
    assert areas["half"] == [crop.area for crop in predicted["half"]]


def test_areas_of_any_range_have_few_ticks(scored):
    """Long numbers would run into each other."""
    for largest in (4, 900, 1 << 20):
        image = replace(scored.images[0], predicted_areas=np.array([1, largest]), errors=None, cell_type=None)
        (figure,) = size_figures(ReportCells([image], None, scored.predictions))
        ticks = figure.axes[0].xaxis.get_majorticklocs().tolist()
        assert 2 <= len(ticks) <= 8
        assert len({after / before for before, after in itertools.pairwise(ticks)}) == 1


def test_nothing_at_all(tmp_path):
    """No cell is true and none predicted; an image without either scores 1."""
    (tmp_path / "train.csv").write_text("id,annotation,width,height,cell_type\na,,20,10,cort\n")
    write_submission(tmp_path / "submission.csv", {"a": []})
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((10, 20), np.uint8))
    page = Page(render_report(cells=gather_cells(tmp_path, tmp_path / "train.csv", [tmp_path / "a.png"])))
    assert page.rows("score-table")["all"]["Score"] == "1.000"
    assert page.rows("score-table")["all"]["Precision"] == "–"
    assert set(page.payload["pictures"]["a"]["layers"].values()) == {""}
    assert "none" in page.text
    assert Page(render_report(cells=gather_cells(tmp_path))).rows("image-table")["a"]["Predicted"] == "0"


def test_foreign_text_is_escaped_and_nothing_is_fetched(tmp_path, run_folder):
    name = "a\"><img src=x onerror=alert(1)>&'"
    header = "id,annotation,width,height,cell_type"
    quoted = name.replace('"', '""')
    (tmp_path / "train.csv").write_text(f'{header}\n"{quoted}",1 3,20,10,{EVIL}\n')
    write_submission(tmp_path / "submission.csv", {name: ["1 3"]})
    (run_folder / "config.yaml").write_text(f"OUTPUT_DIR: '{EVIL}'\n")
    run = read_run(run_folder)
    cells = gather_cells(tmp_path / "submission.csv", tmp_path / "train.csv")
    html = render_report(run, cells, title=EVIL, differences=differences(run.config, {}), base_name=EVIL)
    page = Page(html)
    assert html.count("<script") == 2, "the page's own: data and code"
    assert not [tag for tag, attributes in page.tags if tag in ("img", "link", "iframe") or "onerror" in attributes]
    assert name in page.rows("image-table")
    assert EVIL in page.text
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(address.startswith("#") for address in addresses)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_charts_follow_the_page_s_colours_and_are_the_same_every_time(scored, run_folder):
    html = render_report(read_run(run_folder), scored)
    assert html == render_report(read_run(run_folder), scored)
    charts = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(charts) == 6
    for chart in charts:
        for name in ("--ink", "--muted", "--line"):
            assert f"var({name})" in chart
        # Of a type and of a line: each is a variable, which the page defines for both grounds.
        for name in set(re.findall(r"var\((--[\w-]+)\)", chart)):
            assert html.count(f"{name}:") >= (1 if name.startswith("--t") else 2), name
        assert not set(re.findall(r"(?<!\()#[0-9a-f]{6}\b", chart.lower())), "a colour that a dark page does not change"


def test_a_point_is_a_link_to_its_picture(tmp_path):
    """Whatever an image is called, the script finds the name in the address."""
    name = "a $b$_c\"<é>&'#?%20"
    quoted = name.replace('"', '""')
    (tmp_path / "train.csv").write_text(f'id,annotation,width,height,cell_type\n"{quoted}",1 3,20,10,$x_{{$\n')
    write_submission(tmp_path / "submission.csv", {name: ["1 3"]})
    html = render_report(cells=gather_cells(tmp_path / "submission.csv", tmp_path / "train.csv"))
    links = [attributes for tag, attributes in Page(html).tags if tag == "a" and "xlink:href" in attributes]
    [address] = {link["xlink:href"] for link in links}
    assert address.startswith("#picture:")
    assert unquote(address.removeprefix("#picture:")) == name
    assert "Cell area: $x_{$" in Page(html).text


def test_long_runs_are_thinned_and_broken_losses_are_said(run_folder):
    rows = "".join(f"{i},{'nan' if i == 77 else 2.5},1,0.1,0.1,0.1\n" for i in range(5000))
    (run_folder / "losses.csv").write_text("iteration,total_loss,loss_mask,lr,data_time,time\n" + rows)
    html = render_report(read_run(run_folder))
    [chart] = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(chart) < 300_000
    assert "1 iteration without a finite loss" in Page(html).text


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "losses.csv").write_text("")
    page = Page(render_report(read_run(tmp_path)))
    assert "Nothing has been measured yet." in page.text
    assert "The run's folder has no run.json" in page.text
    assert "Nothing has been measured yet." in page.text


def test_what_does_not_belong_together_is_one_sentence(tmp_path, discs):
    folder, *_ = discs
    with pytest.raises(CellSegError, match=r"holds none of run\.json"):
        read_run(tmp_path)
    with pytest.raises(CellSegError, match=r"holds no submission\.csv"):
        gather_cells(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(CellSegError, match="need the ground truth"):
        gather_cells(tmp_path / "results.json")
    cv2.imwrite(str(tmp_path / "half.png"), np.zeros((10, 20), np.uint8))
    with pytest.raises(CellSegError, match="20 × 10 pixels, but its masks are for 96 × 96"):
        gather_cells(folder / "out", folder / "train.csv", [tmp_path / "half.png"])
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(CellSegError, match=r"run\.json is damaged: all of it is \[\]"):
        read_run(tmp_path)
