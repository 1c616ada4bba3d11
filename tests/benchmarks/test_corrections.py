"""The loop of corrections on drawn discs, with the smallest network."""

import json

import pytest

from cellseg_d2.benchmarks.corrections import run_loop
from cellseg_d2.correction.project import Project
from cellseg_d2.datasets.coco_reader import load_coco
from cellseg_d2.errors import CellSegError
from tests.discs import write_disc_dataset, write_untrained_run


@pytest.fixture(scope="module")
def place(tmp_path_factory, repository):
    root = tmp_path_factory.mktemp("loop")
    folder = write_disc_dataset(root, images=3)
    for part in ("train", "val"):
        path = folder / f"instances_{part}.json"
        content = json.loads(path.read_text())
        content["images"] = content["images"][:2]  # the third has no cells
        path.write_text(json.dumps(content))
    (root / "model").mkdir()
    known = ["INPUT.CELL_DIAMETER", "20.0", "INPUT.ZOOM_TEST", "1.0"]
    write_untrained_run(root / "model", repository / "configs/quickstart/instant_test.yaml", known)
    return root


def files(place):
    return [place / f"discs/instances_{part}.json" for part in ("train", "val")]


def test_the_truth_is_what_is_saved_and_each_step_is_scored(place, tmp_path, quick_trainings):
    options = {"held_out": 2, "steps": (1, 2), "orders": ("unsure",), "model": str(place / "model"), "iterations": 1}
    steps = list(run_loop(files(place), tmp_path / "loop", **options))
    assert [(step.order, step.images) for step in steps] == [("unsure", 0), ("unsure", 1), ("unsure", 2)]
    assert all(0 <= step.score <= 1 for step in steps)
    assert steps[0].cpu_minutes == 0 < steps[1].cpu_minutes
    project = Project.open(tmp_path / "loop/unsure")
    assert len(project.corrected) == 2
    truth = {record.id: record for path in files(place) for record in load_coco(path)}
    for record in project.records():
        assert sorted(c.crop.area for c in record.cells) == sorted(c.crop.area for c in truth[record.id].cells)
    assert len(list((tmp_path / "loop/unsure/models").iterdir())) == 2


def test_too_few_images_are_refused(place, tmp_path):
    with pytest.raises(CellSegError, match="4 images leave 1 to correct, and 2 are asked for"):
        next(run_loop(files(place), tmp_path / "loop", held_out=3, steps=(2,)))
