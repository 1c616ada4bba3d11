"""tools/benchmark.py as a user runs it."""

import json

import pytest

from cellseg_d2.benchmarks import mappers
from cellseg_d2.cli import benchmark as tool
from tests.discs import write_disc_dataset


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.setattr(mappers, "LEAST_SECONDS", 1e-9)
    return tool.main


def test_all_parts_are_measured_and_written(benchmark, tmp_path, capsys):
    folder = write_disc_dataset(tmp_path, name="toolbench")
    (folder / "images" / "train0.png").unlink()
    (tmp_path / "losses.csv").write_text("iteration,data_time,time\n1,0.1,1.0\n")
    output = tmp_path / "out" / "results.json"
    source = ["--json", str(folder / "instances_train.json"), "--run", str(tmp_path), "--output", str(output)]
    parts = ["--parts", "rates", "targets", "round-trip", "outside", "waiting"]
    benchmark(["data", *source, *parts, "--repeats", "1", "--draws", "3", "--images-limit", "2"])
    printed = capsys.readouterr().out
    results = json.loads(output.read_text())
    assert results["densest_cells"] == 5
    assert results["targets"]["stock"]["tensors"] > results["targets"]["new"]["tensors"]
    assert results["waiting"][str(tmp_path)] == {"iterations": 1, "seconds": 1.0, "data_seconds": 0.1}
    assert results["outside"]["rotate_zoom_crop"]["clean"] == 1
    assert results["rates_average"].keys() == results["rates_densest"].keys()
    assert len(results["rates_average"]["new"]["seconds"]) == 2
    gain = results["faster_densest"]["new"]["all"]
    stock, new = (results["rates_densest"][name]["seconds"] for name in ("stock", "new"))
    assert gain == pytest.approx(sum(stock) / sum(new))
    assert f"{gain:.1f} ×" in printed
    assert "have no image file" in printed
    assert "10.00%" in printed


def test_what_cannot_be_measured_is_said(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    folder = write_disc_dataset(tmp_path, name="toolbench")
    benchmark(["data", "--json", str(folder / "instances_train.json"), "--parts", "waiting", "memory"])
    printed = capsys.readouterr().out
    assert "GPU memory was not measured: PyTorch finds no CUDA GPU" in printed
    assert "name training runs with --run" in printed


@pytest.mark.parametrize("options", [["--json", "a.json", "--images", "i"], ["--csv", "c", "--repeats", "0"], []])
def test_wrong_options_are_refused(benchmark, options):
    with pytest.raises(SystemExit) as error:
        benchmark(["data", *options])
    assert error.value.code == 2
