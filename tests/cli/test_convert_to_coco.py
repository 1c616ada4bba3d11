"""tools/convert_to_coco.py as a user runs it, on drawn data and, where they are at hand, on real ones."""

import json
import os
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from cellseg_d2.cli import convert_to_coco
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.crop import MaskCrop, crop_to_kaggle
from cellseg_d2.masks.rle import parse_kaggle_rle
from tests.quick_python import quick_python

HEIGHT, WIDTH = 24, 36
COLUMNS = ["id", "annotation", "width", "height", "cell_type", "plate_time", "sample_date", "sample_id"]
TYPES = ("shsy5y", "astro", "cort")


@pytest.fixture
def convert(capsys):
    """Run the tool in this process; returns what it printed."""

    def call(*arguments):
        assert not convert_to_coco.main(list(map(str, arguments)))
        return capsys.readouterr().out

    return call


@pytest.fixture
def competition(tmp_path):
    """The competition's layout: of each type 4 wells with 3 images of 2 cells."""
    rng = np.random.default_rng(0)
    (tmp_path / "train").mkdir()
    rows = []
    for cell_type in TYPES:
        for well in range(4):
            for field in range(3):
                name = f"{cell_type}{well}{field}"
                Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)).save(
                    tmp_path / f"train/{name}.png"
                )
                for _ in range(2):
                    mask = np.zeros((HEIGHT, WIDTH), bool)
                    top, left = rng.integers(0, (HEIGHT - 6, WIDTH - 6))
                    mask[top : top + 6, left : left + rng.integers(2, 7)] = True
                    text = crop_to_kaggle(MaskCrop.from_full(mask), WIDTH)
                    sample = f"{cell_type}[x]_C{well}-{field}_Vessel-1_Ph_1"
                    rows.append((name, text, WIDTH, HEIGHT, cell_type, "11h30m00s", "2020-01-01", sample))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def source(folder):
    return "--csv", folder / "train.csv", "--images", folder / "train"


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def groups_of(path):
    return {image["group"] for image in json.loads(path.read_text())["images"]}


def same_mask(text, segmentation):
    """Whether a Kaggle text and a COCO RLE name the same pixels, by drawing both."""
    flat = np.zeros(np.prod(segmentation["size"]), bool)
    for start, length in parse_kaggle_rle(text):
        flat[start : start + length] = True
    return np.array_equal(flat.reshape(segmentation["size"]), coco_mask.decode(segmentation).astype(bool))


def test_every_cell_arrives_in_one_part(competition, convert):
    output = competition / "datasets" / "mine"
    printed = convert(*source(competition), "--output", output, "--seed", 3)
    assert sorted(contents(output)) == ["audit.json", "instances_train.json", "instances_val.json"]
    parts = {part: json.loads((output / f"instances_{part}.json").read_text()) for part in ("train", "val")}
    table = pd.read_csv(competition / "train.csv").groupby("id")
    seen = []
    for part in parts.values():
        assert part["info"]["image_root"] == (competition / "train").as_posix()
        assert [category["name"] for category in part["categories"]] == list(TYPES)
        assert part["info"]["split"]["seed"] == 3
        masks = {image["id"]: [] for image in part["images"]}
        for annotation in part["annotations"]:
            masks[annotation["image_id"]].append(annotation["segmentation"])
        for image in part["images"]:
            texts = table.get_group(image["source_id"])["annotation"]
            assert all(same_mask(text, mask) for text, mask in zip(texts, masks[image["id"]], strict=True))
            assert (image["file_name"], image["height"], image["width"]) == (f"{image['source_id']}.png", HEIGHT, WIDTH)
            seen.append(image["source_id"])
    assert sorted(seen) == sorted(table.groups)
    train, val = groups_of(output / "instances_train.json"), groups_of(output / "instances_val.json")
    assert not train & val
    assert {group.split("[")[0] for group in val} == set(TYPES), "every type is in the validation part"
    assert len(val) == 3
    assert "grouped by plate and well (12 groups), stratified by cell type, seed 3" in printed
    assert "shsy5y" in printed


def test_other_cell_types_are_taken_where_they_are_named(competition, convert):
    csv = pd.read_csv(competition / "train.csv")
    csv["cell_type"] = csv["cell_type"].replace({"astro": "stellate", "cort": "round"})
    csv.to_csv(competition / "other.csv", index=False)
    common = "--csv", competition / "other.csv", "--images", competition / "train", "--output", competition / "out"
    with pytest.raises(CellSegError, match="stellate"):
        convert(*common)
    convert(*common, "--cell-types", "round", "stellate", "shsy5y")
    content = json.loads((competition / "out/instances_train.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["round", "stellate", "shsy5y"]


def test_the_same_seed_writes_the_same_files(competition, convert):
    files, groups = [], []
    for seed in (0, 0, 1):
        convert(*source(competition), "--output", competition / "out", "--seed", seed)
        files.append(contents(competition / "out"))
        groups.append(groups_of(competition / "out/instances_val.json"))
    assert files[0] == files[1] != files[2]
    assert groups[0] != groups[2]


def test_folds_take_turns(competition, convert):
    output = competition / "out"
    printed = convert(*source(competition), "--output", output, "--folds", 4)
    val = [groups_of(output / f"instances_fold{k}_val.json") for k in range(4)]
    everything = set().union(*val)
    assert len(everything) == 12
    for k in range(4):
        assert groups_of(output / f"instances_fold{k}_train.json") == everything - val[k]
        assert {group.split("[")[0] for group in val[k]} == set(TYPES)
    assert "fold3_val" in printed
    assert not (output / "instances_train.json").exists()


def test_no_validation_and_left_over_files(competition, convert):
    output = competition / "out"
    convert(*source(competition), "--output", output)
    printed = convert(*source(competition), "--output", output, "--val-fraction", 0, "--drop-images", "astro00")
    assert len(load_coco(output / "instances_train.json")) == 35
    assert "instances_val.json is from an earlier conversion" in printed
    assert (output / "instances_val.json").exists()


def test_an_image_with_its_data_set_moves_as_a_whole(competition, convert):
    (competition / "datasets").mkdir()
    for name in ("train", "train.csv"):
        shutil.move(competition / name, competition / "datasets" / name)
    convert(*source(competition / "datasets"), "--output", competition / "datasets" / "mine")
    info = json.loads((competition / "datasets/mine/instances_val.json").read_text())["info"]
    assert info["image_root"] == "../train"


def add_row(folder, *values):
    with (folder / "train.csv").open("a") as file:
        file.write(",".join(map(str, [*values, "", "", ""])) + "\n")


def test_a_malformed_row_stops_everything_but_the_audit(competition, convert):
    output = competition / "out"
    convert(*source(competition), "--output", output)
    before = contents(output)
    add_row(competition, "astro00", "1 2 x", WIDTH, HEIGHT, "astro")
    add_row(competition, "astro00", f"{HEIGHT * WIDTH} 9", WIDTH, HEIGHT, "astro")
    with pytest.raises(CellSegError, match="2 errors") as caught:
        convert(*source(competition), "--output", output)
    assert "row 74, id astro00: malformed mask" in str(caught.value)
    assert "row 75, id astro00: outside the image" in str(caught.value)
    after = contents(output)
    audit = json.loads(after.pop("audit.json"))
    before.pop("audit.json")
    assert after == before, "the older conversion is untouched"
    assert (audit["open_errors"], audit["parts"]) == (2, {})

    printed = convert(*source(competition), "--output", output, "--clean")
    audit = json.loads((output / "audit.json").read_text())
    assert audit["open_errors"] == 0
    errors = [finding for finding in audit["findings"] if finding["severity"] == "error"]
    assert [(finding["row"], finding["id"], finding["action"]) for finding in errors] == [
        (74, "astro00", "row dropped"),
        (75, "astro00", "cut off at the image"),
    ]
    assert "row dropped" in printed
    records = {r.id: r for part in ("train", "val") for r in load_coco(output / f"instances_{part}.json")}
    last = records["astro00"].cells[-1].crop
    assert (last.box, last.area) == ((WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT), 1)
    assert sum(part["cells"] for part in audit["parts"].values()) == sum(len(r.cells) for r in records.values())


def test_images_that_are_not_there(competition, convert):
    output = competition / "out"
    (competition / "train/astro00.png").unlink()
    with pytest.raises(CellSegError, match="id astro00: missing image"):
        convert(*source(competition), "--output", output)
    printed = convert(*source(competition), "--output", output, "--allow-missing-images", "--val-fraction", 0)
    assert "missing image" in printed
    assert len(load_coco(output / "instances_train.json")) == 36
    printed = convert(*source(competition), "--output", output, "--clean", "--val-fraction", 0)
    assert "image dropped" in printed
    assert len(load_coco(output / "instances_train.json")) == 35
    printed = convert(*source(competition)[:2], "--output", output, "--allow-missing-images")
    assert "no --images given" in printed


def test_label_images(tmp_path, convert):
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[2:6, 3:9], labels[10:14, 20:30] = 400, 7
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(5):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / f"images/{i}.png")
        Image.fromarray(labels).save(tmp_path / f"labels/{i}.png")
    arguments = ("--images", tmp_path / "images", "--labels", tmp_path / "labels", "--output", tmp_path / "out")
    convert(*arguments, "--category", "nucleus")
    train, val = (load_coco(tmp_path / f"out/instances_{part}.json") for part in ("train", "val"))
    assert (len(train), len(val)) == (4, 1)
    for record in (*train, *val):
        masks = [cell.crop.to_full(HEIGHT, WIDTH) for cell in record.cells]
        assert np.array_equal(masks, [labels == 7, labels == 400])
        assert record.cells[0].cell_type == "nucleus"


@pytest.mark.parametrize(("option", "ring"), [(["--partly-annotated"], 0), (["--partly-annotated", "2"], 2)])
def test_of_images_with_some_annotated_cells_the_rest_is_ignored(competition, convert, option, ring):
    given = ["--csv", competition / "train.csv", "--images", competition / "train", "--val-fraction", 0]
    convert(*given, "--output", competition / "out", *option)
    records = load_coco(competition / "out/instances_train.json")
    assert len(records) == 36
    for record in records:
        cells = np.any([cell.crop.to_full(HEIGHT, WIDTH) for cell in record.cells], axis=0)
        ignore = record.ignore.to_full(HEIGHT, WIDTH)
        assert not (cells & ignore).any()
        known = (cells | ignore).sum() < HEIGHT * WIDTH
        assert known == (ring > 0)
    with pytest.raises(SystemExit):
        convert(*given, "--output", competition / "out", "--partly-annotated", -1)


def test_as_a_command(competition, repository, tmp_path):
    def run(*arguments):
        command = [*quick_python(), str(repository / "tools/convert_to_coco.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})

    result = run(*source(competition), "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "", "short work on a pipe"
    add_row(competition, "astro00", "0 1", WIDTH, HEIGHT, "astro")
    result = run(*source(competition), "--output", tmp_path / "out2", "--no-progress")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert [path.name for path in (tmp_path / "out2").iterdir()] == ["audit.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of the arguments --coco --csv --cvat --geojson --labelme --labels --livecell"),
        (("--csv", "a.csv"), "--images"),
        (("--csv", "a.csv", "--livecell", "b"), "not allowed with"),
        (("--livecell", "b", "--folds", "3"), "parts are kept"),
        (("--csv", "a.csv", "--images", "t", "--folds", "3", "--val-fraction", "0.2"), "not allowed with"),
        (("--csv", "a.csv", "--images", "t", "--folds", "1"), "at least 2"),
        (("--csv", "a.csv", "--images", "t", "--val-fraction", "1"), "below 1"),
        (("--csv", "a.csv", "--images", "t", "--seed", "-1"), "must be from 0 to 2147483647, not -1"),
        (("--csv", "a.csv", "--images", "t", "--implausible", "0.1"), "only goes with --shapes"),
        (("--csv", "a.csv", "--images", "t", "--shapes", "s", "--implausible", "1"), "above 0 and below 1"),
        (("--labels", "x", "--images", "t", "--cell-types", "a"), "only goes with --csv"),
        (("--csv", "a.csv", "--images", "t", "--background", "2"), "--background only goes with --labels"),
        (("--livecell", "b", "--only-labelled"), "--only-labelled only goes with --labels"),
        (("--labels", "x", "--split-components", "--keep-components"), "not allowed with"),
        (("--csv", "a.csv", "--images", "t", "--cell-types", "a", "a"), "twice"),
    ],
)
def test_arguments_that_make_no_sense(convert, capsys, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as caught:
        convert(*arguments, "--output", tmp_path / "out")
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_refusals_before_anything_is_written(competition, convert, tmp_path):
    output = tmp_path / "out"
    for arguments, message in (
        (("--drop-images", "nobody"), "no image 'nobody'"),
        (("--folds", 13), "12 groups"),
        (("--drop-images", *(f"{t}{w}{f}" for t in TYPES for w in range(4) for f in range(3))), "no image is left"),
    ):
        with pytest.raises(CellSegError, match=message):
            convert(*source(competition), "--output", output, *arguments)
        assert not output.exists()
    output.write_text("a file")
    with pytest.raises(CellSegError, match="is a file"):
        convert(*source(competition), "--output", output)


@pytest.mark.parametrize("blocked", ["instances_train.json", "instances_val.json", "audit.json"])
def test_all_files_are_replaced_or_none(competition, convert, blocked):
    """A new val beside an old train would validate on images that were trained on."""
    output = competition / "out"
    convert(*source(competition), "--output", output, "--seed", 1)
    (output / blocked).unlink()
    (output / blocked).mkdir()
    (output / blocked / "inside").touch()
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="directory") as caught:
        convert(*source(competition), "--output", output, "--seed", 2)
    assert caught.value.filename == str(output / blocked)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_real_competition_files(shared_data, tmp_path, convert):
    folder = shared_data / "sartorius"
    convert(*source(folder), "--output", tmp_path / "sartorius")
    rows = pd.read_csv(folder / "train.csv").groupby("id")["annotation"].apply(list)
    parts = [json.loads((tmp_path / f"sartorius/instances_{part}.json").read_text()) for part in ("train", "val")]
    assert sum(len(part["annotations"]) for part in parts) == 4131
    for part in parts:
        names = {image["id"]: image["source_id"] for image in part["images"]}
        masks = {}
        for annotation in part["annotations"]:
            masks.setdefault(names[annotation["image_id"]], []).append(annotation["segmentation"])
        assert set(masks) == set(names.values())
        for name, own in masks.items():
            assert all(same_mask(text, mask) for text, mask in zip(rows[name], own, strict=True)), name


def test_real_livecell(shared_data, tmp_path, convert):
    printed = convert("--livecell", shared_data / "LIVECell_dataset_2021", "--output", tmp_path / "livecell")
    assert "own parts were kept" in printed
    records = {part: load_coco(tmp_path / f"livecell/instances_{part}.json") for part in ("val", "test")}
    assert {part: (len(own), sum(len(r.cells) for r in own)) for part, own in records.items()} == {
        "val": (5, 1243),
        "test": (15, 3285),
    }
    official = json.loads(
        (shared_data / "LIVECell_dataset_2021/annotations/LIVECell/livecell_coco_test.json").read_text()
    )
    assert {r.number for r in records["test"]} == {image["id"] for image in official["images"]}
    root = json.loads((tmp_path / "livecell/instances_val.json").read_text())["info"]["image_root"]
    assert all((shared_data / root / r.file_name).is_file() for own in records.values() for r in own)
