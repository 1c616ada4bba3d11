"""What is written during training has each iteration once, whatever a kill left."""

import csv
import json

import pytest
from detectron2.utils.events import EventStorage

from cellseg_d2.engine.writers import LossCSVWriter, MetricsWriter
from cellseg_d2.visualization.curves import read_loss_csv, read_scores


def train(folder, start, stop, every=3):
    """The writers of a run that starts at one iteration and is killed before another; returns them."""
    writers = [LossCSVWriter(folder / "losses.csv"), MetricsWriter(folder / "metrics.json")]
    with EventStorage(start) as storage:
        for iteration in range(start, stop):
            storage.iter = iteration
            storage.put_scalars(total_loss=iteration + 0.5, loss_mask=iteration + 0.25, lr=0.1, smoothing_hint=False)
            storage.put_scalar("competition/mean", iteration / 100, smoothing_hint=False)
            if (iteration + 1) % every == 0:
                for writer in writers:
                    writer.write()
    return writers


def iterations(folder):
    with open(folder / "losses.csv", newline="") as file:
        rows = [int(row["iteration"]) for row in csv.DictReader(file)]
    lines = [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]
    return rows, lines


def test_a_resumed_run_goes_on_where_it_starts(tmp_path):
    train(tmp_path, 0, 9)
    assert iterations(tmp_path) == (list(range(9)), [2, 5, 8])
    train(tmp_path, 6, 15)
    assert iterations(tmp_path) == (list(range(15)), [2, 5, 8, 11, 14])
    assert read_loss_csv(tmp_path / "losses.csv")["total_loss"].tolist() == [i + 0.5 for i in range(15)]
    assert read_scores(tmp_path / "metrics.json")["mean"].tolist() == [0.02, 0.05, 0.08, 0.11, 0.14]


def test_a_run_that_starts_anew_begins_both_files_anew(tmp_path):
    train(tmp_path, 0, 30)
    train(tmp_path, 0, 3)
    assert iterations(tmp_path) == ([0, 1, 2], [2])


@pytest.mark.parametrize("cut", [1, 2, 7, 15])
def test_half_a_line_at_the_end_is_dropped(tmp_path, cut):
    train(tmp_path, 0, 9)
    for name in ("losses.csv", "metrics.json"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-cut])
    train(tmp_path, 8, 12)  # its checkpoint was written before the line
    rows, lines = iterations(tmp_path)
    assert rows == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert lines == [2, 5, 8, 11]


def test_nothing_is_written_without_a_value(tmp_path):
    for writer in train(tmp_path, 0, 0):
        with EventStorage(0):
            writer.write()
        writer.close()
    assert not list(tmp_path.iterdir())
