"""The command in a run's record is what was typed, however it was called."""

import pytest

from cellseg_d2.engine.run_record import called_as


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("tools/train_net.py", "tools/train_net.py"),
        ("/home/me/env/bin/cellseg-d2", "cellseg-d2"),
        ("/home/me/env/site-packages/cellseg_d2/cli/__main__.py", "python -m cellseg_d2.cli"),
        ("/home/me/other/__main__.py", "/home/me/other/__main__.py"),
    ],
)
def test_the_command_is_readable(program, typed):
    assert called_as([program, "train-net", "A", "('b',)"]) == f"""{typed} train-net A '('"'"'b'"'"',)'"""
