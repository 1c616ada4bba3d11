"""The ways from detections to run-lengths do the same, and what is measured of them adds up."""

import json
import math
import tracemalloc

import numpy as np
import pytest

from cellseg_d2.benchmarks import prediction, prediction_ways
from cellseg_d2.benchmarks.memory import peak_bytes
from cellseg_d2.benchmarks.prediction import densest_detections, measure_ways, simulated_detections
from cellseg_d2.benchmarks.prediction_ways import LOOPS, OURS, STOCK, STOCK_DISJOINT, by_label_image, ways
from cellseg_d2.cli import benchmark
from cellseg_d2.detections.saved import save_detections
from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.rle import parse_kaggle_rle


@pytest.fixture(scope="module")
def detections():
    return simulated_detections(12, 72, 90, seed=1)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(prediction, "LEAST_SECONDS", 1e-9)


def test_simulated_detections_are_crowded_cells():
    found = simulated_detections(60, 128, 160)
    again = simulated_detections(60, 128, 160)
    areas = [crop.area for crop in found.crops()]
    assert len(found) == 60
    assert 0.2 < sum(areas) / (128 * 160) < 1
    assert 100 < np.median(areas) < 400
    assert sum(areas) > np.count_nonzero(prediction_ways.postprocess(found, prediction_ways.PARAMS).label_image())
    assert np.array_equal(found.masks, again.masks)
    assert np.array_equal(found.boxes, again.boxes)


def test_too_many_cells_are_refused():
    with pytest.raises(CellSegError, match=r"only \d+ of 500 simulated cells find room in 64 × 64 pixels"):
        simulated_detections(500, 64, 64)


def test_all_ways_give_the_same_masks(detections, quick):
    costs = measure_ways(detections, repeats=1, full=True)
    assert list(costs) == [OURS, STOCK, STOCK_DISJOINT, LOOPS]
    for cost in costs.values():
        assert cost.treated == cost.detections == cost.cells == 12
        assert cost.least_iou > 0.97
    assert ways(full=True)[LOOPS](detections).masks == ways()[OURS](detections).masks


def test_a_few_in_loops_are_as_they_are_among_all(detections):
    every, few = ways(full=True)[LOOPS](detections), ways(few=3)[LOOPS](detections)
    assert few.treated == 3
    assert few.masks == [every.masks[index] for index in (0, 6, 11)]


def test_the_way_in_loops_is_scaled_to_all_pairs_and_cells(detections, monkeypatch):
    """With a clock that ticks once a look, each of the three parts takes one second."""
    ticks = iter(range(100))
    monkeypatch.setattr(prediction_ways, "_clocks", lambda: np.full(2, next(ticks), dtype=float))
    outcome = ways(few=3)[LOOPS](detections)
    assert outcome.seconds.tolist() == pytest.approx([1 + 66 / (6 + 11) + 12 / 3] * 2)


def test_costs_compare():
    slow = prediction.Cost([3.0, 9.0, 4.0], [2.0, 2.0, 2.0], 2, 2, None, 2, 1.0, 1.0)
    fast = prediction.Cost([1.0, 1.0, 2.0], [0.5, 0.5, 0.5], 2, 2, None, 2, 1.0, 1.0)
    assert slow.times_slower_than(fast) == {"wall": 4, "cpu": 4}


def test_detections_without_pixels_are_refused(detections, quick):
    empty = prediction.Detections(72, 90, detections.boxes, detections.scores, detections.classes, 0 * detections.masks)
    with pytest.raises(CellSegError, match="none of the detections has a pixel"):
        measure_ways(empty, repeats=1)


def test_the_densest_image_of_a_file(detections, tmp_path):
    few = detections.select(np.arange(5))
    save_detections(tmp_path / "detections.npz", {"few": few, "many": detections}, ["cell"])
    name, found = densest_detections(tmp_path / "detections.npz", 7)
    assert name == "many"
    assert sorted(found.scores) == sorted(detections.scores)[-7:]
    assert len(densest_detections(tmp_path / "detections.npz")[1]) == 12
    save_detections(tmp_path / "none.npz", {"none": few.select([])}, ["cell"])
    with pytest.raises(CellSegError, match="no image with detections"):
        densest_detections(tmp_path / "none.npz")


def test_peak_bytes_count_numpy_and_are_forgotten():
    if peak_bytes(list) is None:
        pytest.skip("this system does not tell the peak memory of a process")
    peaks = [peak_bytes(lambda size=size: np.ones(size, np.uint8).sum()) for size in (60_000_000, 30_000_000)]
    assert 60_000_000 <= peaks[0] < 80_000_000
    assert 30_000_000 <= peaks[1] < 50_000_000


def test_memory_is_that_of_a_few_images_however_many_cells():
    """A full-size mask for each of 800 cells would be 293 MB; an int32 label image is 1.5 MB."""
    detections = simulated_detections(800, 520, 704)
    by_label_image(detections.select(np.arange(3)))
    tracemalloc.start()
    outcome = by_label_image(detections)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(outcome.masks) == 800
    assert peak < 6 * 520 * 704 * np.dtype(np.int32).itemsize
    runs = np.concatenate([parse_kaggle_rle(text) for text in outcome.masks])
    runs = runs[np.argsort(runs[:, 0])]
    assert (runs[1:, 0] >= runs[:-1].sum(axis=1)).all(), "no pixel is given twice"


def test_the_tool_prints_and_writes(quick, tmp_path, capsys):
    output = tmp_path / "out" / "predict.json"
    benchmark.main(["predict", "--cells", "9", "--size", "72", "90", "--repeats", "1", "--output", str(output)])
    printed = capsys.readouterr().out
    results = json.loads(output.read_text())
    assert list(results["ways"]) == [OURS, STOCK, STOCK_DISJOINT, LOOPS]
    assert results["slower"][OURS] == {"wall": 1, "cpu": 1}
    ratio = results["ways"][STOCK]["seconds"][0] / results["ways"][OURS]["seconds"][0]
    assert math.isclose(results["slower"][STOCK]["wall"], ratio)
    assert f"{ratio:,.1f} ×" in printed
    assert "from 4 of 9" in printed
    assert "scaled up" in printed
    for wrong in (["--cells", "0"], ["--size", "5", "5", "--detections", "d.npz"], ["--size", "0", "5"]):
        with pytest.raises(SystemExit) as error:
            benchmark.main(["predict", *wrong])
        assert error.value.code == 2
