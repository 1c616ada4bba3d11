"""Results in folders that mirror those of the images come back, and equal names in different folders stay apart."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellseg_d2.cli import convert, convert_to_coco, evaluate
from cellseg_d2.datasets.annotations import format_of
from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.datasets.find import find_inputs, find_named
from cellseg_d2.datasets.label_images import read_label_image
from cellseg_d2.datasets.names import distinct_names, key_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import find_images
from cellseg_d2.inference.batch import segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.predictions.truth import read_predictions, read_truth
from cellseg_d2.visualization.report.cells import gather_cells

COUNTS = {"B.tif": 1, "p1/day 1/A1.tif": 2, "p2/A1.tif": 3}
EXPECTED = {"B": 1, "p1/day 1/A1": 2, "p2/A1": 3}
BACK = ("labels", "rois", "geojson", "coco")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("p1/A1.tif", "p1/A1"),
        ("p1\\day 2\\A.1.tif", "p1/day 2/A.1"),
        ("A1", "A1"),
        ("C:\\lab\\p1\\A1.tif", "lab/p1/A1"),
        ("../p1/A1.tif", "p1/A1"),
        ("/lab/A1.tif", "lab/A1"),
        (Path("p1/A\\1.tif"), "p1/A\\1"),
    ],
)
def test_keys(file, key):
    assert key_of(file) == key


def test_names_are_short_where_they_can_be():
    assert distinct_names(["p1/A1", "p2/B1", "C.1"]) == ["A1", "B1", "C.1"]
    assert distinct_names(["p1/A1", "p2/A1", "C.1"]) == ["p1/A1", "p2/A1", "C.1"]
    assert distinct_names([]) == []


@pytest.fixture
def plates(tmp_path):
    """Images in folders, with as many cells as :data:`COUNTS` says."""
    for file, count in COUNTS.items():
        (tmp_path / "plates" / file).parent.mkdir(parents=True, exist_ok=True)
        image = np.full((40, 60), 20, np.uint8)
        for number in range(count):
            image[10:22, 5 + 18 * number : 17 + 18 * number] = 200
        cv2.imwrite(str(tmp_path / "plates" / file), image)
    return tmp_path / "plates"


@pytest.fixture
def results(tmp_path, plates):
    folders = find_inputs([plates], recursive=True)
    saved = [*BACK, "submission"]
    segment_files(ClassicalSegmenter("otsu"), list(folders), tmp_path / "results", saved, folders=folders)
    return tmp_path / "results"


def place(results, name):
    return results / {"coco": "coco.json", "submission": "submission.csv"}.get(name, name)


def scores_of(predictions, truth, tmp_path):
    out = tmp_path / "scores.json"
    evaluate.main(["--predictions", str(predictions), "--ground-truth", str(truth), "--json", str(out)])
    return json.loads(out.read_text())


@pytest.mark.parametrize("truth", BACK[:1] + BACK[3:])
@pytest.mark.parametrize("name", [*BACK, "submission"])
def test_mirrored_results_are_scored_and_shown(tmp_path, plates, results, name, truth):
    scores = scores_of(place(results, name), place(results, truth), tmp_path)
    assert (scores["mean"], scores["tp50"], scores["fp50"], scores["fn50"]) == (1, 6, 0, 0)
    assert scores["per_image"].keys() == EXPECTED.keys()
    report = gather_cells(place(results, name), None, [plates])
    assert {image.name: image.predicted_count for image in report.images} == EXPECTED
    assert {image.name: image.path for image in report.images} == find_named([plates])


@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize("name", BACK)
def test_mirrored_results_are_converted_into_mirrored_ones(tmp_path, plates, results, name, with_images):
    source = place(results, name)
    images = ["--images", str(plates)] if with_images or name in ("rois", "geojson") else []
    convert.main([str(source), "--to", "labels", "coco", "--output", str(tmp_path / "out"), *images])
    files = sorted(path.relative_to(tmp_path / "out/labels").as_posix() for path in (tmp_path / "out").rglob("*.tif"))
    assert files == ["B_labels.tif", "p1/day 1/A1_labels.tif", "p2/A1_labels.tif"]
    for file in files:
        assert (read_label_image(tmp_path / "out/labels" / file) == read_label_image(results / "labels" / file)).all()
    assert scores_of(tmp_path / "out/coco.json", results / "labels", tmp_path)["mean"] == 1


def test_other_names_in_the_same_folder_are_no_obstacle(tmp_path, plates, results):
    """Label images of one plate of two: the images at their places are theirs, though another plate has the name."""
    (results / "labels/p2/A1_labels.tif").unlink()
    (results / "labels/B_labels.tif").unlink()
    convert.main([str(results / "geojson"), "--to", "coco", "--output", str(tmp_path / "o"), "--images", str(plates)])
    only = tmp_path / "only"
    (results / "geojson/p1").rename(only)
    (tmp_path / "one").mkdir()
    only.rename(tmp_path / "one/p1")
    convert.main([str(tmp_path / "one"), "--to", "labels", "--output", str(tmp_path / "n"), "--images", str(plates)])
    assert [path.relative_to(tmp_path / "n/labels").as_posix() for path in (tmp_path / "n").rglob("*.tif")] == [
        "p1/day 1/A1_labels.tif"
    ]


def test_a_suffix_of_another_tool_comes_back_from_folders(tmp_path, plates):
    folders = find_inputs([plates], recursive=True)
    for ending in ("_masks", ""):
        out = tmp_path / f"out{ending}"
        saved = ["labels", "coco"]
        segment_files(ClassicalSegmenter("otsu"), list(folders), out, saved, folders=folders, ending=ending)
        assert scores_of(out / "labels", out / "coco.json", tmp_path)["tp50"] == 6


def test_annotations_beside_their_images(tmp_path, plates):
    """labelme's habit, in several folders: the images are no label images."""
    for file in COUNTS:
        shape = {"label": "cell", "shape_type": "rectangle", "points": [[2, 3], [12, 13]]}
        size = {"imageHeight": 40, "imageWidth": 60}
        content = {"shapes": [shape], "imagePath": Path(file).name, "imageData": None, **size}
        (plates / file).with_suffix(".json").write_text(json.dumps(content))
    assert format_of(plates) == "labelme"
    convert.main([str(plates), "--to", "labels", "--output", str(tmp_path / "out")])
    for file in COUNTS:
        labels = read_label_image(tmp_path / "out/labels" / Path(file).with_name(Path(file).stem + "_labels.tif"))
        assert (labels > 0).sum() == 100


def test_images_beside_their_label_images(tmp_path, plates):
    """Cellpose's habit: the photographs are no label images."""
    for file, count in COUNTS.items():
        labels = np.zeros((40, 60), np.uint16)
        for number in range(count):
            labels[5:9, 10 * number : 10 * number + 6] = number + 1
        path = plates / file
        cv2.imwrite(str(path.with_name(path.stem + "_cp_masks.png")), labels)
    convert.main([str(plates), "--to", "coco", "--output", str(tmp_path / "out")])
    found = {record.id: len(record.cells) for record in load_coco(tmp_path / "out/coco.json")}
    assert found == EXPECTED


@pytest.mark.parametrize("values", [(255, 255), (1, 1, 1, 1, 1, 1, 1)])
def test_binary_masks_are_not_taken_for_label_images(tmp_path, values, capsys):
    mask = np.zeros((20, 60), np.uint8)
    for place_, value in enumerate(values):
        mask[5:9, 8 * place_ : 8 * place_ + 5] = value
    cv2.imwrite(str(tmp_path / "a.png"), mask)
    given = [str(tmp_path / "a.png"), "--to", "coco", "--output", str(tmp_path / "out")]
    with pytest.raises(CellSegError, match=r"binary mask.*--split-components"):
        convert.main(given)
    assert not (tmp_path / "out/coco.json").exists()
    convert.main([*given, "--split-components"])
    assert f"{len(values)} cells in 1 images" in capsys.readouterr().out
    convert.main([*given, "--keep-components"])
    assert "1 cells in 1 images" in capsys.readouterr().out


@pytest.mark.parametrize("tiles", [[], ["--tiles", "2"]])
@pytest.mark.parametrize("name", ["labels", "rois", "geojson"])
def test_mirrored_results_can_be_trained_on(tmp_path, plates, results, name, tiles):
    source = [f"--{name}", str(results / name), "--images", str(plates), "--recursive", "--val-fraction", "0", *tiles]
    convert_to_coco.main([*source, "--output", str(tmp_path / "ds"), "--no-progress"])
    file = read_coco(tmp_path / "ds/instances_train.json")
    assert all(path.is_file() for path in file.image_paths().values())
    if tiles:
        assert len(file.images) == 12
        assert len(set(file.image_paths().values())) == 12
    else:
        records = {record.id: (record.file_name, len(record.cells)) for record in load_coco(file.source)}
        assert records == {key: (f"{key}.tif", count) for key, count in EXPECTED.items()}


def test_a_mask_a_cell_is_not_taken_for_an_image(tmp_path, plates, capsys):
    for number in range(2):
        (tmp_path / "masks/B").mkdir(parents=True, exist_ok=True)
        mask = np.zeros((40, 60), np.uint8)
        mask[4:9, 20 * number : 20 * number + 9] = 255
        cv2.imwrite(str(tmp_path / f"masks/B/{number}.png"), mask)
    (tmp_path / "images").mkdir()
    (plates / "B.tif").rename(tmp_path / "images/B.tif")
    given = [str(tmp_path / "masks"), "--to", "coco", "--output", str(tmp_path / "out")]
    with pytest.raises(CellSegError, match=r"one cell of several.*--images"):
        convert.main(given)
    convert.main([*given, "--images", str(tmp_path / "images")])
    assert "2 cells in 1 images" in capsys.readouterr().out


def test_stardists_folders(tmp_path, capsys):
    for name in "ab":
        for folder, value in (("images", 90), ("masks", 1)):
            (tmp_path / "train" / folder).mkdir(parents=True, exist_ok=True)
            image = np.zeros((20, 30), np.uint8)
            image[3:8, 4:9] = value
            cv2.imwrite(str(tmp_path / f"train/{folder}/{name}.tif"), image)
    convert.main([str(tmp_path / "train"), "--to", "coco", "--output", str(tmp_path / "out")])
    assert "2 cells in 2 images" in capsys.readouterr().out


def test_a_true_background_with_a_number_is_no_cell(tmp_path):
    """ilastik's masks as the truth; a predicted cell may cover an image."""
    labels = np.full((20, 30), 2, np.uint8)
    labels[3:8, 4:9] = 1
    cv2.imwrite(str(tmp_path / "a.png"), labels)
    with pytest.raises(CellSegError, match=r"cellseg-d2 convert has(.|\n)*--background 2"):
        read_truth(tmp_path / "a.png")
    convert.main([str(tmp_path / "a.png"), "--to", "labels", "--background", "2", "--output", str(tmp_path / "out")])
    truth = read_truth(tmp_path / "out/labels")
    assert len(truth.images["a"].masks) == 1
    assert len(read_predictions(tmp_path / "a.png", truth).masks["a"]) == 2


def test_results_of_other_tools_are_no_images(tmp_path, plates, caplog):
    """Cellpose writes masks and flows beside the images; a name alone, such as well_mask, is an image."""
    for name in ("B_cp_masks.png", "B_flows.tif", "p2/A1_masks.tif", "well_mask.tif", "p2/B_mask.tif"):
        cv2.imwrite(str(plates / name), np.zeros((40, 60), np.uint8))
    found = [path.relative_to(plates).as_posix() for path in find_images(plates, recursive=True)]
    assert found == ["B.tif", "p1/day 1/A1.tif", "p2/A1.tif", "p2/B_mask.tif", "well_mask.tif"]
    assert "results beside their images: 3 files, such as" in caplog.text
    assert find_images(plates / "B_flows.tif") == [plates / "B_flows.tif"]
    labels = np.zeros((40, 60), np.uint8)
    labels[3:8, 4:9] = 1
    for name in ("p2/A1_masks.tif", "p1/day 1/A1_masks.tif", "well.tif", "well_mask.tif", "p2/B.tif", "p2/B_mask.tif"):
        cv2.imwrite(str(plates / name), labels)
    convert.main([str(plates), "--to", "labels", "--output", str(tmp_path / "out")])
    assert len(list((tmp_path / "out/labels").rglob("*.tif"))) == 5


def test_own_results_among_images_are_no_images(tmp_path, plates):
    """Pictures and label images in a folder of images that is read with its sub-folders."""
    results, folders = plates / "results", find_inputs([plates], recursive=True)
    segment_files(ClassicalSegmenter("otsu"), list(folders), results, ["labels", "overlay"], folders=folders)
    arguments = ["--labels", str(results / "labels"), "--images", str(plates), "--recursive"]
    convert_to_coco.main([*arguments, "--output", str(tmp_path / "ds"), "--val-fraction", "0", "--no-progress"])
    found = {record.id: len(record.cells) for record in load_coco(tmp_path / "ds/instances_train.json")}
    assert found == EXPECTED


def test_tiles_are_not_written_among_the_images(tmp_path, plates):
    """A second call with ``--recursive`` would cut the tiles, too."""
    (tmp_path / "labels").mkdir()
    arguments = ["--labels", str(tmp_path / "labels"), "--images", str(plates), "--tiles", "2", "--recursive"]
    cv2.imwrite(str(tmp_path / "labels/B.tif"), np.ones((40, 60), np.uint8))
    with pytest.raises(CellSegError, match=r"tiles would lie in .*plates"):
        convert_to_coco.main([*arguments, "--only-labelled", "--background", "0", "--output", str(plates / "ds")])
    assert not (plates / "ds").exists()


@pytest.mark.parametrize("name", ["labels", "geojson", "rois", "labelme"])
def test_sub_folders_that_are_not_entered_are_named(tmp_path, plates, results, name):
    source = results / name
    if name == "labelme":
        source = tmp_path / "drawn"
        (source / "p1").mkdir(parents=True)
        (source / "p1/a.json").write_text('{"shapes": []}')
    for path in source.iterdir():
        if path.is_file():
            path.unlink()
    arguments = [f"--{name}", str(source), "--images", str(plates), "--output", str(tmp_path / "ds")]
    with pytest.raises(CellSegError, match="but its sub-folders do: --recursive"):
        convert_to_coco.main(arguments)
