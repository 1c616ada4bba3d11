"""Conversion between formats: what is written in one comes back from it, cell by cell."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg_d2.cli import convert, convert_to_coco, evaluate
from cellseg_d2.cli.convert import formats
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.findings import Finding
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference import annotated
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.visualization.report.cells import gather_cells
from tests.coco_files import write_coco

HEIGHT, WIDTH = 24, 30
RING = np.ones((9, 9), bool)
RING[3:6, 3:6] = False
CELLS = [
    ("live", MaskCrop(2, 3, np.ones((5, 6), bool))),
    ("dead", MaskCrop(10, 4, RING)),
    ("dead", MaskCrop(10, 20, np.eye(4, dtype=bool))),
]
BACK = ("labels", "rois", "geojson", "coco")


@pytest.fixture
def truth(tmp_path):
    """A COCO JSON of two images, one without cells, and the images."""
    (tmp_path / "images").mkdir()
    cells = [CellAnnotation(crop, kind, row) for row, (kind, crop) in enumerate(CELLS, start=1)]
    records = [ImageRecord("a", "a.png", HEIGHT, WIDTH, "dead", None, cells), ImageRecord("b", "b.png", HEIGHT, WIDTH)]
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.full((HEIGHT, WIDTH), 9, np.uint8))
    write_coco(tmp_path / "truth.json", records, ("dead", "live"), {"image_root": "images"})
    return tmp_path / "truth.json"


def cells_of(records):
    """By image: for each cell its class and pixels, in any order."""
    return {
        record.id: sorted((c.cell_type, c.crop.to_full(HEIGHT, WIDTH).tobytes()) for c in record.cells)
        for record in records
    }


def run(*words):
    convert.main(list(map(str, words)))


def place(folder, name):
    return folder / ("coco.json" if name == "coco" else name)


@pytest.mark.parametrize("name", BACK)
def test_what_is_written_comes_back(tmp_path, truth, name, capsys):
    images = "--images", tmp_path / "images"
    run(truth, "--to", name, "--output", tmp_path / "out", *images)
    assert "3 cells in 2 images" in capsys.readouterr().out
    run(place(tmp_path / "out", name), "--to", "coco", "--output", tmp_path / "back", *images)
    expected, found = cells_of(load_coco(truth)), cells_of(load_coco(tmp_path / "back/coco.json"))
    if name == "labels":  # which know no classes
        expected = {image: sorted(("cell", mask) for _, mask in own) for image, own in expected.items()}
    assert found == expected


@pytest.mark.parametrize("name", [*BACK, "submission"])
def test_what_is_written_is_scored_and_shown(tmp_path, truth, name, capsys):
    run(truth, "--to", name, "--output", tmp_path / "out", "--images", tmp_path / "images")
    for predictions in (place(tmp_path / "out", name), tmp_path / "out"):
        if name == "submission" and predictions != tmp_path / "out":
            continue
        given = ["--predictions", str(predictions), "--ground-truth", str(truth), "--json", str(tmp_path / "s.json")]
        evaluate.main(given)
        score = json.loads((tmp_path / "s.json").read_text())
        assert (score["mean"], score["tp50"], score["fp50"]) == (1, 3, 0)
        assert set(score["per_image"]) == {"a", "b"}
        report = gather_cells(predictions, truth)
        assert report.errors.score.mean == 1
        alone = gather_cells(predictions, None, [tmp_path / "images"])
        assert {image.name: image.predicted_count for image in alone.images} == {"a": 3, "b": 0}
    if name == "labels":  # as the truth, too
        evaluate.main(["--predictions", str(truth), "--ground-truth", str(tmp_path / "out/labels")])
        assert "1.000" in capsys.readouterr().out


@pytest.mark.parametrize("name", BACK)
def test_what_is_written_can_be_trained_on(tmp_path, truth, name):
    run(truth, "--to", name, "--output", tmp_path / "out", "--images", tmp_path / "images")
    source = ["--" + name, str(place(tmp_path / "out", name)), "--images", str(tmp_path / "images")]
    keep = ["--keep-components"] if name == "labels" else []
    convert_to_coco.main([*source, *keep, "--output", str(tmp_path / "ds"), "--val-fraction", "0", "--no-progress"])
    records = load_coco(tmp_path / "ds/instances_train.json")
    assert [(record.file_name, len(record.cells)) for record in records] == [("a.png", 3), ("b.png", 0)]


def test_images_of_several_types_are_counted(tmp_path, truth, capsys):
    given = ["--coco", str(truth), "--output", str(tmp_path / "ds"), "--val-fraction", "0", "--no-progress"]
    convert_to_coco.main(given)
    assert "images with cells of several types: 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "ds/instances_train.json").read_text())["info"]["images_of_several_types"] == 1


def test_overlaps_in_label_images_go_to_the_smaller_cell(tmp_path, capsys):
    inner, outer = MaskCrop(2, 2, np.ones((3, 3), bool)), MaskCrop(0, 0, np.ones((8, 8), bool))
    cells = [CellAnnotation(crop, "cell", row) for row, crop in enumerate((outer, inner, inner), start=1)]
    write_coco(tmp_path / "a.json", [ImageRecord("a", "a.tif", HEIGHT, WIDTH, "cell", None, cells)], ("cell",))
    run(tmp_path / "a.json", "--to", "labels", "coco", "--output", tmp_path / "out")
    labels = tifffile.imread(tmp_path / "out/labels/a_labels.tif")
    assert {int(value): int(count) for value, count in zip(*np.unique(labels, return_counts=True), strict=True)} == {
        0: HEIGHT * WIDTH - 64,
        1: 55,
        2: 9,
    }
    assert "without a pixel of their own, which labels and submissions cannot hold: 1" in capsys.readouterr().out
    assert len(load_coco(tmp_path / "out/coco.json")[0].cells) == 3


def test_sizes_that_nothing_tells_are_asked_for(tmp_path, truth):
    run(truth, "--to", "geojson", "--output", tmp_path / "out")
    with pytest.raises(CellSegError, match="neither the annotations nor an image file give a width and a height"):
        run(tmp_path / "out/geojson", "--to", "labels", "--output", tmp_path / "new")
    run(tmp_path / "out/geojson", "--to", "labels", "--output", tmp_path / "new", "--images", tmp_path / "images")
    assert tifffile.imread(tmp_path / "new/labels/a_labels.tif").max() == 3


def test_inputs_that_are_nothing_to_convert(tmp_path, truth):
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/a.geojson").write_text("[]")
    (tmp_path / "mixed/b.zip").touch()
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("mixed", r"several kinds, such as a\.geojson \(geojson\), b\.zip \(rois\)"),
        ("empty", "no annotations of a kind that is known"),
        ("none", "does not exist"),
    ):
        with pytest.raises(CellSegError, match=message):
            run(tmp_path / name, "--to", "coco", "--output", tmp_path / "out")
    with pytest.raises(CellSegError, match="would be written over"):
        run(truth.rename(tmp_path / "coco.json"), "--to", "coco", "--output", tmp_path)


def test_numbers_are_the_same_in_all_formats(tmp_path):
    """Also where a label image cannot hold a cell, as no pixel is its own: it comes last."""
    hidden = MaskCrop(2, 2, np.ones((3, 3), bool))
    others = [MaskCrop(12, 2 + 9 * i, np.eye(5, dtype=bool)) for i in (0, 1)]
    cells = [CellAnnotation(crop, "cell", row) for row, crop in enumerate((hidden, hidden, *others), start=1)]
    write_coco(tmp_path / "a.json", [ImageRecord("a", "a.tif", HEIGHT, WIDTH, "cell", None, cells)], ("cell",))
    run(tmp_path / "a.json", "--to", "labels", "csv", "coco", "submission", "--output", tmp_path / "out")
    labels = tifffile.imread(tmp_path / "out/labels/a_labels.tif")
    table = pd.read_csv(tmp_path / "out/csv/a_cells.csv").set_index("label")
    assert (table.index.tolist(), labels.max()) == ([1, 2, 3, 4], 3)
    for number in (1, 2, 3):
        rows, columns = np.nonzero(labels == number)
        assert len(rows) == table.area_px[number]
        middle = table.loc[number, ["centroid_x_px", "centroid_y_px"]]
        assert (columns.mean(), rows.mean()) == pytest.approx(middle, abs=0.51)
    assert len(load_coco(tmp_path / "out/coco.json")[0].cells) == 4
    assert len((tmp_path / "out/submission.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize("name", BACK)
@pytest.mark.parametrize("sub", [".", "new"])
def test_nothing_is_written_into_what_is_read(tmp_path, truth, name, sub):
    """What a first call writes there, a second one would count as cells of its input, or read instead of it."""
    run(truth, "--to", name, "--output", tmp_path / "out", "--images", tmp_path / "images")
    source = (tmp_path / "out" / name).rename(tmp_path / "X") if name != "coco" else tmp_path / "X"
    if name == "coco":  # a folder of such files
        source.mkdir()
        (tmp_path / "out/coco.json").rename(source / "a.json")
    before = sorted(source.rglob("*"))
    for format_ in formats():
        with pytest.raises(CellSegError, match="which is read with its sub-folders"):
            run(source, "--to", format_, "--output", source / sub, "--images", tmp_path / "images")
    assert sorted(source.rglob("*")) == before


def test_formats_are_added_to_a_folder_of_results(tmp_path, truth):
    """Its cells lie in a folder of their own, so that others beside it change nothing."""
    images = "--images", tmp_path / "images"
    run(truth, "--to", "labels", "--output", tmp_path / "out")
    for format_ in ("geojson", "csv", "overlay", "rois"):
        run(tmp_path / "out", "--to", format_, "--output", tmp_path / "out", *images)
        run(tmp_path / "out", "--to", "coco", "--output", tmp_path / "back")
        assert [len(record.cells) for record in load_coco(tmp_path / "back/coco.json")] == [3, 0]


def test_a_csv_of_any_types_keeps_them(tmp_path):
    """As the simulator writes it, and without types."""
    rows = ["a,1 3,8,6,colony,s", "a,17 2,8,6,,s", "b,1 3,8,6,spread,s"]
    (tmp_path / "a.csv").write_text("\n".join(["id,annotation,width,height,cell_type,sample_id", *rows, ""]))
    run(tmp_path / "a.csv", "--to", "coco", "--output", tmp_path / "out", "--category", "other")
    records = load_coco(tmp_path / "out/coco.json")
    assert [[cell.cell_type for cell in r.cells] for r in records] == [["colony", "other"], ["spread"]]


def test_scores_stay_with_their_cells(tmp_path, truth):
    """Through every format that holds scores; an annotation without one gets none in a COCO JSON."""
    content = json.loads(truth.read_text())
    scores = [0.25, 0.875, 0.6180339]
    for annotation, score in zip(content["annotations"], scores, strict=True):
        annotation["score"] = score
    (tmp_path / "scored.json").write_text(json.dumps(content))
    images = "--images", tmp_path / "images"
    run(tmp_path / "scored.json", "--to", "coco", "geojson", "rois", "csv", "--output", tmp_path / "out", *images)
    for name in ("coco", "geojson", "rois"):
        run(place(tmp_path / "out", name), "--to", "coco", "--output", tmp_path / name, *images)
        (record, _) = load_coco(tmp_path / name / "coco.json")
        assert [cell.score for cell in record.cells] == pytest.approx(scores, abs=1e-6), name
    assert pd.read_csv(tmp_path / "out/csv/a_cells.csv").score.tolist() == pytest.approx(scores, abs=1e-4)
    run(truth, "--to", "coco", "--output", tmp_path / "plain")
    assert "score" not in json.loads((tmp_path / "plain/coco.json").read_text())["annotations"][0]
    # What is called score and is no number from 0 to 1 is something else.
    for annotation, other in zip(content["annotations"], (1e300, -1, 2.5), strict=True):
        annotation["score"] = other
    (tmp_path / "other.json").write_text(json.dumps(content))
    run(tmp_path / "other.json", "--to", "coco", "--output", tmp_path / "other")
    (record, _) = load_coco(tmp_path / "other/coco.json")
    assert [cell.score for cell in record.cells] == [None] * 3


@pytest.mark.parametrize("name", ["coco", "geojson", "rois"])
def test_a_score_threshold_counts_for_all_cells_with_scores(tmp_path, truth, name):
    content = json.loads(truth.read_text())
    for annotation, score in zip(content["annotations"], (0.25, 0.875, 0.625), strict=True):
        annotation["score"] = score
    (tmp_path / "scored.json").write_text(json.dumps(content))
    run(tmp_path / "scored.json", "--to", name, "--output", tmp_path / "out", "--images", tmp_path / "images")
    given = ["--predictions", str(tmp_path / "out"), "--ground-truth", str(truth), "--json", str(tmp_path / "s.json")]
    for threshold, found in ((None, 3), (0.3, 2), (0.7, 1), (0.9, 0)):
        evaluate.main([*given, *([] if threshold is None else ["--score-threshold", str(threshold)])])
        assert json.loads((tmp_path / "s.json").read_text())["tp50"] == found


def test_what_becomes_of_regions_to_ignore_is_said_for_each_format(tmp_path, truth, capsys):
    content = json.loads(truth.read_text())
    content["annotations"][0]["iscrowd"] = 1
    truth.write_text(json.dumps(content))
    run(truth, "--to", "labels", "geojson", "--output", tmp_path / "out")
    assert "marked iscrowd → left out of labels, geojson\n" in capsys.readouterr().err
    run(truth, "--to", "coco", "csv", "--output", tmp_path / "both")
    assert "→ kept in coco.json as a region to ignore, left out of csv\n" in capsys.readouterr().err
    run(truth, "--to", "coco", "--output", tmp_path / "one")
    assert "→ kept in coco.json as a region to ignore\n" in capsys.readouterr().err


def test_images_that_are_gone_are_no_reason_to_refuse_masks(tmp_path, truth):
    """And where the images are needed, the option that names them is named."""
    (tmp_path / "images").rename(tmp_path / "moved")
    run(truth, "--to", "labels", "--output", tmp_path / "out")
    assert tifffile.imread(tmp_path / "out/labels/a_labels.tif").max() == 3
    given = ["--coco", str(truth), "--output", str(tmp_path / "ds"), "--val-fraction", "0", "--no-progress"]
    with pytest.raises(CellSegError, match=r"not in .*images, which it names: name their folder with --images"):
        convert_to_coco.main(given)
    convert_to_coco.main([*given, "--images", str(tmp_path / "moved")])
    content = json.loads(truth.read_text())
    content["images"] = [{**image, "height": 0, "width": 0} for image in content["images"]]
    truth.write_text(json.dumps(content))
    with pytest.raises(CellSegError, match="gives width and height: --images names the images"):
        run(truth, "--to", "labels", "--output", tmp_path / "new")
    run(truth, "--to", "labels", "--output", tmp_path / "new", "--images", tmp_path / "moved")


def test_files_of_an_earlier_call_are_named(tmp_path, truth, capsys):
    run(truth, "--to", "labels", "--output", tmp_path / "out")
    (tmp_path / "out/labels/b_labels.tif").rename(tmp_path / "out/labels/old_labels.tif")
    assert "earlier call" not in capsys.readouterr().out
    run(truth, "--to", "labels", "csv", "--output", tmp_path / "out")
    said = capsys.readouterr().out
    assert "earlier call that are none of these results: 1, such as" in said
    assert str(tmp_path / "out/labels/old_labels.tif") in said
    run(truth, "--to", "geojson", "--output", tmp_path / "out")
    assert "earlier call" not in capsys.readouterr().out, "of other formats nothing is mixed"


def test_findings_are_looked_at_once(tmp_path, monkeypatch):
    """However many there are, so that cleaning takes time in proportion to the cells."""
    images = [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(40)]
    bad = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [[1, 1, 2, 2]]} for n in range(40)]
    content = {"images": images, "annotations": bad, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "bad.json").write_text(json.dumps(content))
    asked = []
    is_open = Finding.is_open
    monkeypatch.setattr(Finding, "is_open", property(lambda self: asked.append(self) or is_open.fget(self)))
    monkeypatch.setattr(annotated, "encode_record", None)  # of which labels need nothing
    run(tmp_path / "bad.json", "--to", "labels", "--output", tmp_path / "out", "--clean")
    assert len(asked) <= 2 * 40


@pytest.mark.parametrize("name", ["geojson", "rois"])
def test_planes_have_the_size_of_their_stack(tmp_path, truth, name):
    """By the names that infer gives their results; a lone image is no stack, whatever its name begins with."""
    run(truth, "--to", name, "--output", tmp_path / "out")
    for file in (tmp_path / "out" / name).iterdir():
        file.rename(file.with_name(file.name.replace("a", "movie_t000_z001", 1).replace("b", "movie_t001_z000", 1)))
    (tmp_path / "stacks").mkdir()
    tifffile.imwrite(
        tmp_path / "stacks/movie.tif", np.zeros((2, 2, HEIGHT, WIDTH), np.uint8), metadata={"axes": "TZYX"}
    )
    images = "--images", tmp_path / "stacks"
    run(tmp_path / "out" / name, "--to", "coco", "--output", tmp_path / "back", *images)
    expected = cells_of(load_coco(truth))
    back = tmp_path / "back/coco.json"
    assert cells_of(load_coco(back)) == {"movie_t000_z001": expected["a"], "movie_t001_z000": expected["b"]}
    given = ["--predictions", str(back), "--ground-truth", str(tmp_path / "out" / name), "--images"]
    evaluate.main([*given, str(tmp_path / "stacks/movie.tif"), "--json", str(tmp_path / "s.json")])
    assert json.loads((tmp_path / "s.json").read_text())["mean"] == 1
    tifffile.imwrite(tmp_path / "stacks/movie.tif", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(CellSegError, match="neither the annotations nor an image file give a width and a height"):
        run(tmp_path / "out" / name, "--to", "coco", "--output", tmp_path / "new", *images)
