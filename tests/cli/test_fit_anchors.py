"""The tool that measures and fits anchors, as it is called."""

import subprocess

import cv2
import pytest
import yaml

from cellseg_d2.cli import fit_anchors
from tests.conftest import sentences
from tests.discs import write_disc_dataset
from tests.quick_python import quick_python


@pytest.fixture(scope="module")
def json_file(tmp_path_factory):
    return write_disc_dataset(tmp_path_factory.mktemp("data"), images=4) / "instances_train.json"


def fit(repository, *args):
    command = [*quick_python(), str(repository / "tools/fit_anchors.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_table_yaml_and_picture(repository, json_file, tmp_path):
    picture = tmp_path / "new/iou.png"
    result = fit(repository, "--json", json_file, "--zoom", 1, 2, "--histogram", picture)
    assert result.returncode == 0, result.stderr
    for cell_type in ("bright", "dark"):
        assert f"\n{cell_type}" in result.stdout
    proposal = yaml.safe_load(result.stdout.split("# fitted\n")[1].split("\n\nwrote")[0])
    assert [len(level) for level in proposal["MODEL"]["ANCHOR_GENERATOR"]["SIZES"]] == [2] * 5
    assert cv2.imread(str(picture)).std() > 10


def test_a_configuration_s_own_anchors(repository, json_file, capsys):
    config = repository / "configs/sartorius/report_baseline.yaml"
    fit_anchors.main(["--json", str(json_file), "--config-file", str(config), "--no-fit"])
    printed = capsys.readouterr().out
    assert "short side 800 px, long at most 1333 px" in printed
    assert "SIZES: [[32], [64], [128], [256], [512]]" in printed
    assert "fitted" not in printed
    config = repository / "configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml"
    fit_anchors.main(["--json", str(json_file), "--config-file", str(config), "--no-fit"])
    assert "enlarged 1.35 times" in capsys.readouterr().out
    fit_anchors.main(["--json", str(json_file), "--config-file", str(config), "--no-fit", "--short-side", "600"])
    assert "short side 600 px" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"), [(("--ratios", "4"), "must be odd"), (("--zoom", "0"), "must be above 0")]
)
def test_wrong_options_are_named(json_file, args, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        fit_anchors.main(["--json", str(json_file), *args])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_file(repository):
    result = fit(repository, "--json", "nowhere.json")
    assert (result.returncode, sentences(result.stderr)) == (2, ["error: nowhere.json does not exist"])
