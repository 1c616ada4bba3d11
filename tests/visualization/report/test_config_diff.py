"""What a run's configuration changes in a base."""

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.visualization.report.config_diff import base_config, differences


def test_differences_of_configurations():
    base = {"A": {"B": 1, "GONE": None}, "S": "x"}
    own = {"A": {"B": 1.0, "NEW": [1, "two"]}, "S": "x"}
    assert differences(own, base) == [("A.B", "1", "1.0"), ("A.GONE", "null", None), ("A.NEW", None, "[1, two]")]
    assert differences(base, base) == []


def test_a_base_is_the_defaults_or_a_file_with_what_it_builds_on(tmp_path):
    defaults = base_config()
    assert defaults["INPUT"]["AUGMENTATIONS"]
    (tmp_path / "Base.yaml").write_text("SOLVER:\n  BASE_LR: 0.125\n")
    (tmp_path / "child.yaml").write_text("_BASE_: Base.yaml\nMODEL:\n  MASK_ON: True\n")
    rows = differences(base_config(tmp_path / "child.yaml"), defaults)
    assert [(row.key, row.own) for row in rows] == [("MODEL.MASK_ON", "true"), ("SOLVER.BASE_LR", "0.125")]
    (tmp_path / "child.yaml").write_text("SOLVER:\n  NO_SUCH_KEY: 1\n")
    with pytest.raises(CellSegError, match="NO_SUCH_KEY"):
        base_config(tmp_path / "child.yaml")
    with pytest.raises(CellSegError, match="there is no configuration file"):
        base_config(tmp_path / "none.yaml")
