"""A traced network gives what the network gives, in images of any size, to a program that has PyTorch only."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.modeling.build import build_network
from cellseg_d2.weights import torchscript
from cellseg_d2.weights.weights import load_trained
from tests.discs import CLASSES, write_untrained_run

# As in a program that knows neither this package nor Detectron2.
ELSEWHERE = """
import json, sys
for name in ("detectron2", "cellseg_d2", "fvcore"):
    sys.modules[name] = None
import numpy as np, torch, torchvision
notes = {"cellseg_d2.json": ""}
model = torch.jit.load(sys.argv[1], _extra_files=notes)
for folder in sys.argv[2:]:
    with torch.no_grad():
        found = model(torch.from_numpy(np.load(folder + "/image.npy")))
    np.savez(folder + "/found.npz", *(part.numpy() for part in found))
print(json.dumps(json.loads(notes["cellseg_d2.json"])))
"""


@pytest.fixture
def run(tmp_path, repository):
    (tmp_path / "run").mkdir()
    return write_untrained_run(tmp_path / "run", repository / "configs/quickstart/instant_test.yaml")


def test_elsewhere_it_detects_what_the_network_detects(run, tmp_path, call_tool):
    out = tmp_path / "out"
    code, said = call_tool("export_model", "--config-file", run / "config.yaml", "--output", out, "--torchscript")
    assert code == 0, said
    assert [path.name for path in out.iterdir()] == ["model.ts"]
    cfg = load_config(run / "config.yaml")
    network = build_network(cfg).eval()
    load_trained(network, run / "model_best.pth")
    images = {}
    for height, width in ((96, 96), (75, 131)):
        image = np.random.default_rng(height).uniform(0, 255, (len(cfg.MODEL.PIXEL_MEAN), height, width))
        folder = tmp_path / f"{height}x{width}"
        folder.mkdir()
        images[folder] = image.astype(np.float32)
        np.save(folder / "image.npy", images[folder])
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, out / "model.ts", *images]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for folder, image in images.items():
        with torch.no_grad():
            inputs = [{"image": torch.from_numpy(image)}]
            expected = network.inference(inputs, do_postprocess=False)[0]
        found = list(np.load(folder / "found.npz").values())
        assert len(expected) > 5
        own = (expected.pred_boxes.tensor, expected.pred_classes, expected.pred_masks, expected.scores)
        for ours, theirs in zip(own, found, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)
    notes = json.loads(result.stdout)
    assert notes["outputs"] == ["boxes", "classes", "masks", "scores"]
    assert notes["class_names"] == list(CLASSES)


def test_a_network_that_tracing_cannot_follow_is_not_written(run, tmp_path, monkeypatch):
    """Here one that looks at the left of an image only."""

    class Left(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, image):
            return self.inner(image[:, :, :100])

    trace = torch.jit.trace
    monkeypatch.setattr(torch.jit, "trace", lambda inner, given, **kw: trace(Left(inner), given, **kw))
    cfg = load_config(run / "config.yaml")
    with pytest.raises(CellSegError, match="the traced network gives other boxes"):
        torchscript.export_torchscript(cfg, run / "model_best.pth", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_dense_branch_is_refused_before_anything_is_read(repository, tmp_path):
    cfg = load_config(repository / "configs/quickstart/dense_mask_rcnn_R_18_FPN_GN.yaml", ["MODEL.DEVICE", "cpu"])
    with pytest.raises(CellSegError, match=r"DenseRCNN, whose cells .* without --torchscript"):
        torchscript.export_torchscript(cfg, tmp_path / "nothing.pth", tmp_path / "out")


def test_it_goes_with_no_other_kind(tmp_path, call_tool):
    for other in (["--plain-detectron2"], ["--postprocess", "a.yaml"]):
        code, said = call_tool("export_model", "--config-file", "c.yaml", "--output", "o", "--torchscript", *other)
        assert code == 2
        assert "not allowed with" in said or "--postprocess goes with" in said
