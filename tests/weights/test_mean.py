"""The mean of weights is taken parameter by parameter, of one network only, and is exported as a model."""

import pytest
import torch
import yaml

from cellseg_d2.cli.export_model import main
from cellseg_d2.errors import CellSegError
from cellseg_d2.weights.mean import mean_weights
from cellseg_d2.weights.weight_files import read_weight_file
from tests.discs import write_untrained_run


def write(path, **weights):
    torch.save({"model": weights}, path)
    return path


def test_it_is_the_mean_of_each_parameter(tmp_path):
    a = write(tmp_path / "a.pth", w=torch.tensor([1.0, -2.0]), seen=torch.tensor(5))
    b = write(tmp_path / "b.pth", w=torch.tensor([3.0, 2.0], dtype=torch.float16), seen=torch.tensor(7))
    c = write(tmp_path / "c.pth", w=torch.tensor([5.0, 3.0]), seen=torch.tensor(9))
    mean = mean_weights([a, b, c])
    assert mean["w"].tolist() == [3.0, 1.0]
    assert mean["w"].dtype == torch.float32
    assert mean["seen"].item() == 5


def test_one_file_is_left_as_it_is(tmp_path):
    (name, value), *rest = mean_weights([write(tmp_path / "a.pth", w=torch.tensor([0.5], dtype=torch.float16))]).items()
    assert (name, value.dtype, value.item(), rest) == ("w", torch.float16, 0.5, [])


def test_many_half_precision_files_do_not_lose_digits(tmp_path):
    value = torch.tensor([1000.0, 0.125], dtype=torch.float16)
    files = [write(tmp_path / f"{k}.pth", w=value) for k in range(9)]
    assert mean_weights(files)["w"].tolist() == [1000.0, 0.125]


@pytest.mark.parametrize(
    "other", [{"v": torch.zeros(2)}, {"w": torch.zeros(3)}, {"w": torch.zeros(2), "v": torch.zeros(1)}]
)
def test_files_of_other_networks_are_refused(tmp_path, other):
    a, b = write(tmp_path / "a.pth", w=torch.zeros(2)), write(tmp_path / "b.pth", **other)
    with pytest.raises(CellSegError, match=r"b\.pth is of another network than .*a\.pth: they differ in . parameters"):
        mean_weights([a, b])


def test_files_of_other_classes_are_refused(tmp_path):
    files = []
    for name, classes in (("a", ["x", "y"]), ("b", ["y", "x"]), ("c", ["x", "y"])):
        (tmp_path / name).mkdir()
        files.append(write(tmp_path / name / "model.pth", w=torch.ones(2)))
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump({"MODEL": {"CLASS_NAMES": classes}}))
    with pytest.raises(CellSegError, match=r"b.model\.pth is of a network with the classes y, x, .* of one with x, y"):
        mean_weights(files[:2])
    assert mean_weights([files[0], files[2]])["w"].tolist() == [1, 1]


def test_a_file_counts_once(tmp_path, monkeypatch):
    file = write(tmp_path / "a.pth", w=torch.ones(2))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CellSegError, match=r"a\.pth is named twice"):
        mean_weights([file, "a.pth"])


@pytest.fixture(scope="module")
def run(tmp_path_factory, repository):
    return write_untrained_run(tmp_path_factory.mktemp("run"), repository / "configs/quickstart/instant_test.yaml")


def test_export_model_writes_it(run, tmp_path, capsys):
    weights = read_weight_file(run / "model_best.pth").weights
    shifted = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    other = write(tmp_path / "other.pth", **shifted)
    files = ["--weights", str(run / "model_best.pth"), str(other)]
    main(["--config-file", str(run / "config.yaml"), *files, "--output", str(tmp_path / "mean"), "--full-precision"])
    assert "the mean of 2 files of weights" in capsys.readouterr().out
    written = read_weight_file(tmp_path / "mean/model.safetensors").weights
    for name, value in weights.items():
        expected = value + 0.5 if value.is_floating_point() else value
        torch.testing.assert_close(written[name], expected, msg=name)


def test_other_kinds_take_one_file(run, tmp_path, capsys):
    files = ["--weights", str(run / "model_best.pth"), str(run / "model_best.pth")]
    with pytest.raises(SystemExit) as exit:
        main(["--config-file", str(run / "config.yaml"), *files, "--output", str(tmp_path / "x"), "--onnx"])
    assert exit.value.code != 0
    assert "--onnx takes one file of --weights" in capsys.readouterr().err
