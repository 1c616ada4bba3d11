"""Run folders in any state: a report of what is whole, or one sentence about what is damaged."""

import json

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.visualization.report.page import render_report
from cellseg_d2.visualization.report.run_folder import evaluated_dataset, read_run

RECORD = {
    "command": "train_net.py",
    "started": "2026-01-02T03:04:05+00:00",
    "seed": 7,
    "weights": "",
    "versions": {"torch": "9.8.7", "fvcore": None},
    "machine": {"system": "Linux", "device": "cpu"},
    "datasets": {"discs_val": {"json_file": "d/instances_val.json", "sha256": "ab" * 32, "images": 4, "cells": 15}},
}
VALUES = [None, True, 3, 2.5, "text", [], ["a"], [[1]], {}, {"a": 1}, {"a": {"b": [None]}}]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "losses.csv").write_text(
        "iteration,total_loss,loss_mask,lr\n" + "".join(f"{i},3,1,0.1\n" for i in range(9))
    )
    (tmp_path / "metrics.json").write_text('{"iteration": 8, "competition/mean": 0.3, "competition/cort": 0.2}\n')
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    (tmp_path / "config.yaml").write_text("DATASETS: {TEST: [discs_val]}\nSOLVER: {BASE_LR: 0.5}\n")
    (tmp_path / "inference/discs_val").mkdir(parents=True)
    (tmp_path / "inference/discs_val/submission.csv").write_text("id,predicted\na,1 2\n")
    return tmp_path


@pytest.fixture
def no_curves(folder):
    """Without what is drawn, which takes most of the time and has nothing to do with records and configurations."""
    (folder / "losses.csv").unlink()
    (folder / "metrics.json").unlink()


def reported(folder):
    run = read_run(folder)
    assert evaluated_dataset(run).name == "discs_val"
    return render_report(run, title="damaged")


def fault_in(folder, name):
    """The sentence about a damaged file; None where a page could be drawn."""
    try:
        assert reported(folder).startswith("<!")
    except CellSegError as error:
        said = str(error)
    else:
        return None
    assert str(folder / name) in said
    assert "\n" not in said
    return said


def test_a_whole_folder(folder):
    assert "9 iterations" in reported(folder)


def paths_of(value, keys=()):
    yield keys
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*keys, key))


@pytest.mark.parametrize("keys", list(paths_of(RECORD)), ids=".".join)
def test_a_record_with_any_value_of_another_kind(folder, no_curves, keys):
    """Each value of a record in turn becomes each of the others: a page that can be drawn, or a sentence."""
    outcomes = set()
    for value in VALUES:
        record = json.loads(json.dumps(RECORD))
        place = record
        for key in keys[:-1]:
            place = place[key]
        if keys:
            place[keys[-1]] = value
        else:
            record = value
        (folder / "run.json").write_text(json.dumps(record))
        outcomes.add(fault_in(folder, "run.json") is None)
    assert False in outcomes


@pytest.mark.parametrize(
    "text",
    [
        *(json.dumps(value) for value in VALUES if value != {}),
        *(f"DATASETS: {json.dumps(value)}" for value in VALUES),
        *(f"DATASETS: {{TEST: {json.dumps(value)}}}" for value in VALUES),
        "DATASETS: [",
        "\0",
    ],
)
def test_configurations(folder, no_curves, text):
    (folder / "config.yaml").write_text(text)
    fault_in(folder, "config.yaml")


@pytest.mark.parametrize("value", [*VALUES, float("inf"), float("nan"), 10**400, -5, 1e300])
@pytest.mark.parametrize("key", ["iteration", "competition/mean", "competition/cort"])
def test_scores_that_are_no_numbers_are_passed_over(folder, key, value):
    lines = [{"iteration": 4, "competition/mean": 0.25}, {"iteration": 8, "competition/mean": 0.3, key: value}]
    (folder / "metrics.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "[" * 100_000 + "\n")
    run = read_run(folder)
    assert reported(folder).startswith("<!")
    if key != "competition/mean":
        assert run.scores["mean"].iloc[0] in (0.25, 0.3)


@pytest.mark.parametrize(
    "text",
    [
        "iteration,total_loss\n1,2,3,4\n2,3,4,5\n",
        "iteration,total_loss\n" + "x,y\n" * 3,
        "iteration,total_loss\n1e300,1\n",
        "iteration,total_loss\n-5,1\ninf,2\n",
        "iteration,iteration,total_loss\n1,1,1\n",
        "iteration,total_loss\n\0\0,\0\n",
        "iteration\n1\n",
        '"iteration,total_loss\n1,2\n',
        "\n\n",
        ",,,\n1,2\n",
    ],
)
def test_losses(folder, text):
    (folder / "losses.csv").write_text(text)
    fault_in(folder, "losses.csv")
