"""ONNX Runtime gives the maps that the network gives, in batches of any size."""

import json
import sys

import numpy as np
import pytest
import torch

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.weights import onnx_model
from cellseg_d2.weights.dense_maps import load_maps_network
from tests.dense_discs import CONFIG
from tests.discs import CLASSES, write_untrained_run

ORT = "ONNX needs pip install 'cellseg_d2[onnx]'"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    return write_untrained_run(tmp_path / "run", CONFIG, ["MODEL.META_ARCHITECTURE", "DenseRCNN"])


def test_it_gives_the_maps_of_the_network(run, tmp_path, call_tool):
    pytest.importorskip("onnx", reason=ORT)
    onnxruntime = pytest.importorskip("onnxruntime", reason=ORT)
    out = tmp_path / "out"
    code, said = call_tool("export_model", "--config-file", run / "config.yaml", "--output", out, "--onnx")
    assert code == 0, said
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    network = load_maps_network(load_config(run / "config.yaml"), run / "model_best.pth")
    session = onnxruntime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    notes = json.loads(session.get_modelmeta().custom_metadata_map["cellseg_d2"])
    assert notes["maps"] == ["foreground", "boundary", "flow_x", "flow_y", *CLASSES]
    step = notes["sides_are_multiples_of"]
    for batch, rows, columns in ((1, 2, 2), (3, 2, 5), (1, 9, 4)):
        image = np.random.default_rng(rows).uniform(0, 255, (batch, notes["channels"], rows * step, columns * step))
        image = image.astype(np.float32)
        (maps,) = session.run(None, {"image": image})
        assert maps.shape == (batch, 4 + len(CLASSES), *(side // notes["stride"] for side in image.shape[2:]))
        with torch.no_grad():
            np.testing.assert_allclose(maps, network(torch.from_numpy(image)).numpy(), atol=1e-4)


def test_a_network_that_the_exporter_does_not_follow_is_not_written(run, tmp_path, monkeypatch):
    """Here one that looks at the left of an image only."""
    pytest.importorskip("onnxruntime", reason=ORT)

    class Left(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, image):
            return self.inner(image[..., : 2 * self.inner.divisor])

    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda inner, *given, **kw: export(Left(inner), *given, **kw))
    with pytest.raises(CellSegError, match="ONNX Runtime gives other maps"):
        onnx_model.export_onnx(load_config(run / "config.yaml"), run / "model_best.pth", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_without_its_packages_it_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CellSegError, match=r"pip install 'cellseg_d2\[onnx\]'"):
        onnx_model.export_onnx(load_config(run / "config.yaml"), run / "model_best.pth", tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        (["--onnx"], "onnxruntime"),
        (["--bioimageio", "--name", "Boxes", "--author", "A", "--license", "MIT"], "bioimageio.spec"),
    ],
)
def test_boxes_alone_have_no_maps(tmp_path, call_tool, kind, package):
    pytest.importorskip(package, reason=f"{package} is not installed")
    (tmp_path / "run").mkdir()
    run = write_untrained_run(tmp_path / "run", CONFIG)
    code, said = call_tool("export_model", "--config-file", run / "config.yaml", "--output", tmp_path / "out", *kind)
    assert code == 2
    assert "ReflectionPaddedRCNN, which has no dense branch" in said
    assert not list((tmp_path / "out").glob("*"))
