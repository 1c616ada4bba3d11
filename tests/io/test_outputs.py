"""What is read is never written over, by whatever name it goes."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.io.outputs import check_outputs, is_own_result


def test_inputs_are_no_outputs(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    image = tmp_path / "in/a.png"
    image.touch()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    check_outputs([tmp_path / "in/b.png", None, tmp_path / "out"], [image, None, tmp_path / "none"])
    check_outputs([tmp_path / "in/a"], [image])
    for output in (image, "in/a.png", "in/../in/a.png", "link/a.png", tmp_path / "in", "link", tmp_path):
        with pytest.raises(CellSegError, match=r"a\.png is an input and would be written over"):
            check_outputs([tmp_path / "out", output], [image])
    with pytest.raises(CellSegError, match="is an input"):
        check_outputs([image], ["link/a.png"])


def test_one_file_by_two_names_is_one(tmp_path):
    """As on systems where upper and lower case are the same."""
    (tmp_path / "a.png").touch()
    (tmp_path / "A.png").hardlink_to(tmp_path / "a.png")
    with pytest.raises(CellSegError, match="is an input"):
        check_outputs([tmp_path / "A.png"], [tmp_path / "a.png"])


def test_nothing_is_written_where_inputs_are_looked_for(tmp_path, monkeypatch):
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "a.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    check_outputs([tmp_path / "out", "in2/labels", "b.json"], [], searched=[tmp_path / "in", None, "a.json", "none"])
    for output in ("in/labels", "in/deep/new/labels", tmp_path / "link/labels", "in/../in/coco.json"):
        for searched in ("in", "link", tmp_path / "in"):
            with pytest.raises(CellSegError, match=r"would lie in .*, which is read with its sub-folders"):
                check_outputs([output], [], searched=[searched])


def test_own_results_are_known_and_others_are_not(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a_overlay.png")
    tifffile.imwrite(tmp_path / "a_labels.tif", np.zeros((4, 4), np.uint16))
    assert not any(map(is_own_result, [*tmp_path.iterdir(), tmp_path / "none.png", tmp_path]))


def test_outputs_are_different_files(tmp_path, monkeypatch):
    (tmp_path / "real.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    monkeypatch.chdir(tmp_path)
    check_outputs(["a.csv", "b.csv", None, None, "real.csv", "link.csv"], [])
    for other in ("a.csv", tmp_path / "a.csv", "new/../a.csv"):
        with pytest.raises(CellSegError, match=r"a\.csv is named for two outputs, of which one would be lost"):
            check_outputs(["a.csv", "b.csv", other], [])
