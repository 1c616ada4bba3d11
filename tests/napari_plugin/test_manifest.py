"""What napari is told about the plugin, and the parts that need no screen."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

npe2 = pytest.importorskip("npe2", reason="napari is not installed: pip install 'cellseg_d2[napari]'")
from cellseg_d2.cli.correct import DISPLAYS  # noqa: E402
from cellseg_d2.datasets.records import CellAnnotation, ImageRecord  # noqa: E402
from cellseg_d2.errors import CellSegError  # noqa: E402
from cellseg_d2.masks.crop import MaskCrop  # noqa: E402
from cellseg_d2.napari_plugin import readers, samples, writers  # noqa: E402
from tests.coco_files import write_coco  # noqa: E402

MANIFEST = Path(samples.__file__).with_name("napari.yaml")


def test_all_that_the_manifest_names_is_there(qt):
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "cellseg_d2"
    assert {sample.key for sample in manifest.contributions.sample_data} == {"neurons", "epithelium"}


@pytest.mark.parametrize("sample", [samples.neurons, samples.epithelium])
def test_samples_are_an_image_and_its_cells(sample):
    (image, _, first), (labels, options, second) = sample()
    assert (first, second) == ("image", "labels")
    assert image.shape == labels.shape
    assert labels.max() > 5
    assert not options["visible"]
    assert np.array_equal(sample()[0][0], image)


@pytest.mark.parametrize(("write", "suffix"), [(writers.write_rois, "zip"), (writers.write_geojson, "geojson")])
def test_cells_are_written_and_come_back(tmp_path, write, suffix):
    labels = np.zeros((30, 40), int)
    labels[2:9, 3:12], labels[15:25, 20:31] = 4, 9
    path = tmp_path / f"cells.{suffix}"
    assert write(str(path), labels, {"name": "cells"}) == [str(path)]
    if suffix == "geojson":
        assert len(json.loads(path.read_text())["features"]) == 2
    else:
        import roifile

        assert len(roifile.roiread(path)) == 2
    with pytest.raises(CellSegError, match="3 dimensions"):
        write(str(tmp_path / "no"), np.zeros((2, 3, 4), int), {"name": "stack"})


def test_coco_json_becomes_layers(tmp_path):
    cell = CellAnnotation(MaskCrop(2, 3, np.ones((4, 5), bool)), "cell")
    path = tmp_path / "some.json"
    write_coco(path, [ImageRecord("a", "a.png", 20, 30, "cell", None, [cell])], ("cell",))
    ((labels, options, kind),) = readers.coco_reader(str(path))(str(path))
    assert (kind, options["name"]) == ("labels", "a, cells")
    assert labels.sum() == 20
    (tmp_path / "other.json").write_text("{}")
    assert readers.coco_reader(str(tmp_path / "other.json")) is None


def test_the_package_is_imported_without_qt():
    """Also the command, whose import is that of its help."""
    code = "import sys, cellseg_d2, cellseg_d2.cli.correct, cellseg_d2.correction.project, cellseg_d2.cli.infer\n"
    code += "print([name for name in sys.modules if name.split('.')[0] in ('qtpy', 'PySide6', 'napari', 'vispy')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_napari_the_command_says_how_to_get_it(tmp_path, monkeypatch, call_tool):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "napari" else found(name, *rest)
    )
    code, said = call_tool("correct", "--images", tmp_path, "--project", tmp_path / "p")
    assert code == 2
    assert said == "error: napari is not installed: type `pip install 'cellseg_d2[napari]'`"
    assert not (tmp_path / "p").exists()


def test_without_a_display_the_command_says_so(tmp_path, monkeypatch, call_tool):
    """Where Qt would end the process by a signal; nothing has been written."""
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    code, said = call_tool("correct", "--images", tmp_path, "--project", tmp_path / "p")
    assert code == 2
    assert said.startswith("error: there is no display to open napari on: run this in a desktop session")
    assert not (tmp_path / "p").exists()
