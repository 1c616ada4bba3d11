"""A package for bioimage.io passes its validator, and what it describes is what the network does."""

import sys
import zipfile

import cv2
import numpy as np
import pytest
import torch

from cellseg_d2.config import load_config
from cellseg_d2.errors import CellSegError
from cellseg_d2.images.intensity import to_uint8
from cellseg_d2.io.text import read_yaml
from cellseg_d2.weights.bioimageio import Description, export_bioimageio
from cellseg_d2.weights.dense_maps import load_maps_network
from tests.dense_discs import CONFIG
from tests.discs import write_untrained_run

ABOUT = ("--name", "Drawn discs", "--author", "Ada Lovelace", "--author", "Mary Somerville", "--license", "CC-BY-4.0")


@pytest.fixture(scope="module", params=["auto", "percentile"])
def package(request, tmp_path_factory):
    """The run, and the unpacked package of it."""
    folder = tmp_path_factory.mktemp("zoo")
    opts = ["MODEL.META_ARCHITECTURE", "DenseSegmenter", "INPUT.INTENSITY", request.param]
    run = write_untrained_run(folder, CONFIG, opts)
    pytest.importorskip("bioimageio.spec", reason="it needs pip install 'cellseg_d2[bioimageio]'")
    about = Description("Drawn discs", ["Ada Lovelace", "Mary Somerville"], "CC-BY-4.0")
    path = export_bioimageio(load_config(run / "config.yaml"), run / "model_best.pth", folder / "out", about)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
    return run, path, folder / "unpacked"


def test_the_validator_passes(package):
    from bioimageio.spec import load_description

    description = load_description(package[1], perform_io_checks=True)
    assert description.validation_summary.status == "valid-format"
    assert not description.validation_summary.errors
    assert [author.name for author in description.authors] == ["Ada Lovelace", "Mary Somerville"]
    assert str(description.license) == "CC-BY-4.0"


def test_the_weights_and_preprocessing_give_the_test_output(package):
    run, _, folder = package
    rdf = read_yaml(folder / "rdf.yaml")
    image = np.load(folder / "test_input.npy")
    expected = np.load(folder / "test_output.npy")
    stretched = image
    for step in rdf["inputs"][0]["preprocessing"]:
        given = step["kwargs"]
        if step["id"] == "scale_range":
            low, high = np.percentile(image, [given["min_percentile"], given["max_percentile"]])
            stretched = (image - low) / (high - low + float(given["eps"]))
        elif step["id"] == "scale_linear":
            stretched = stretched * given["gain"] + given["offset"]
        elif step["id"] == "clip":
            stretched = np.clip(stretched, given["min"], given["max"])
        else:
            assert step["id"] == "ensure_dtype"
    stretched = stretched.astype(np.float32)
    cfg = load_config(run / "config.yaml")
    own = to_uint8(image[0, 0].astype(np.uint8), cfg.INPUT.INTENSITY, cfg.INPUT.INTENSITY_PERCENTILES)
    assert np.abs(stretched[0, 0] - own).max() <= 0.51  # it is not rounded
    network = load_maps_network(cfg, run / "model_best.pth")
    with torch.no_grad():
        for module in (torch.jit.load(folder / "weights.pt"), network):
            np.testing.assert_allclose(module(torch.from_numpy(stretched)).numpy(), expected, atol=1e-4)
    names = rdf["outputs"][0]["axes"][1]["channel_names"]
    assert expected.shape[1] == len(names)
    assert names[:4] == ["foreground", "boundary", "flow_x", "flow_y"]
    assert [axis["scale"] for axis in rdf["outputs"][0]["axes"][2:]] == [cfg.MODEL.DENSE.STRIDE] * 2


def test_cover_and_documentation_say_what_it_is(package):
    folder = package[2]
    height, width = cv2.imread(str(folder / "cover.png")).shape[:2]
    assert width == 2 * height
    text = (folder / "README.md").read_text(encoding="utf-8")
    for words in ("# Drawn discs", "## Validation", "multiples of", "The boxes of the same network", "`flow_x`"):
        assert words in text
    assert "follow_flows(flow, foreground >= 0.4)" in text, "as maps_to_detections has it"
    assert ("stretches the image's percentiles" in text) == bool(
        [s for s in read_yaml(folder / "rdf.yaml")["inputs"][0]["preprocessing"] if s["id"] == "scale_range"]
    )


def test_what_only_its_makers_know_is_asked_for(tmp_path, call_tool):
    given = ("--config-file", "c.yaml", "--output", tmp_path / "out")
    code, said = call_tool("export_model", *given, "--bioimageio", *ABOUT[:2])
    assert code == 2
    assert "--bioimageio needs --name, --author and --license" in said
    code, said = call_tool("export_model", *given, "--bioimageio", *ABOUT, "--author", " ")
    assert code == 2
    assert "--bioimageio needs --name, --author and --license" in said
    code, said = call_tool("export_model", *given, *ABOUT)
    assert code == 2
    assert "go with --bioimageio" in said


def test_a_licence_that_there_is_not_is_a_sentence(package, tmp_path, call_tool):
    run = package[0]
    command = ("--config-file", run / "config.yaml", "--output", tmp_path / "out", "--bioimageio", *ABOUT[:-1], "Mine")
    code, said = call_tool("export_model", *command)
    assert code == 2
    assert "bioimage.io takes no such description: license 'Mine' is not one of the names that it knows" in said
    assert not list((tmp_path / "out").glob("*"))


def test_without_its_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioimageio", None)
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(CellSegError, match=r"pip install 'cellseg_d2\[bioimageio\]'"):
        export_bioimageio(load_config(CONFIG), tmp_path / "none.pth", tmp_path, Description("Discs", ["A"], "MIT"))
