"""What the benchmark measures on: chosen images, and noise where a file is missing."""

import json

import numpy as np
import pytest

from cellseg_d2.benchmarks.inputs import annotated_entries, convert_csv, densest, some, with_stand_ins
from cellseg_d2.data.catalog import register_json
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.read import read_image
from tests.discs import write_disc_dataset


@pytest.fixture
def folder(tmp_path):
    return write_disc_dataset(tmp_path, name="benchmarked")


def test_images_without_cells_are_left_out(folder):
    name = register_json(folder / "instances_val.json")
    assert name == "benchmarked_val"
    assert [len(entry["annotations"]) for entry in annotated_entries(name)] == [5, 5, 5]


def test_a_dataset_without_cells_is_refused(folder):
    content = json.loads((folder / "instances_val.json").read_text())
    (folder / "instances_val.json").write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(CellSegError, match="no image with cells"):
        annotated_entries(register_json(folder / "instances_val.json"))


def test_noise_takes_the_place_of_missing_files_only(folder, tmp_path):
    (folder / "images" / "train1.png").unlink()
    entries = annotated_entries(register_json(folder / "instances_train.json"))
    first, again = tmp_path / "first", tmp_path / "again"
    first.mkdir()
    again.mkdir()
    replaced, number = with_stand_ins(entries, first)
    assert number == 1
    assert [a["file_name"] == b["file_name"] for a, b in zip(entries, replaced, strict=True)] == [True, False, True]
    noise = read_image(replaced[1]["file_name"])
    assert noise.shape == (96, 96)
    assert noise.std() > 3
    assert np.array_equal(noise, read_image(with_stand_ins(entries, again)[0][1]["file_name"]))


def test_some_and_densest():
    entries = [{"annotations": [0] * number} for number in (3, 9, 1, 4, 4, 2)]
    assert len(densest(entries)["annotations"]) == 9
    assert some(entries, 0) == some(entries, 6) == entries
    chosen = some(entries, 3, seed=1)
    assert len(chosen) == 3
    assert chosen == some(entries, 3, seed=1)
    assert chosen == [entry for entry in entries if any(entry is other for other in chosen)]


def test_a_csv_is_converted_with_the_images_that_are_there(tmp_path):
    csv = tmp_path / "train.csv"
    csv.write_text(
        "id,annotation,width,height,cell_type\na,1 3 11 3,10,20,cort\nb,5 2,10,20,astro\na,50 2,10,20,cort\n"
    )
    entries = annotated_entries(register_json(convert_csv(csv, None, tmp_path / "converted")))
    assert [len(entry["annotations"]) for entry in entries] == [2, 1]
    assert with_stand_ins(entries, tmp_path)[1] == 2
