"""What a shell that completes a line gets: commands, the options of the command, their choices, and files."""

import os
import subprocess
import sys

import pytest

from cellseg_d2.cli.commands import COMMANDS
from tests.conftest import REPOSITORY


def complete(line, folder):
    """What fits the line, asked as a shell asks with argcomplete; nothing else may be said."""
    answer = folder / "answer"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n"}
    environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    command = [sys.executable, "-m", "cellseg_d2.cli"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert result.stdout == result.stderr == ""
    return [word.rstrip() for word in answer.read_text().splitlines()] if answer.exists() else []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cellseg-d2 ", sorted(COMMANDS)),
        ("cellseg-d2 ev", ["evaluate"]),
        ("cellseg-d2 --ver", ["--version"]),
        ("cellseg-d2 evaluate --pre", ["--predictions"]),
        ("cellseg-d2 convert_to_coco --live", ["--livecell", "--livecell-images"]),
        ("cellseg-d2 train-net --num-g", ["--num-gpus"]),
        ("cellseg-d2 visualize com", ["comparison"]),
        ("cellseg-d2 visualize dataset --im", ["--images"]),
        ("cellseg-d2 evaluate --json found/ce", ["found/cells.csv"]),
        ("cellseg-d2 evaluate --json 'found/ce", ["found/cells.csv"]),
        ("cellseg-d2 predict --inp", ["--input"]),
        ("cellseg-d2 nothing --pre", []),
    ],
)
def test_what_fits(line, expected, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found/cells.csv").touch()
    assert sorted(complete(line, tmp_path)) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_completes_its_options(name, tmp_path):
    assert "--help" in complete(f"cellseg-d2 {name} --h", tmp_path)


def test_a_line_that_is_completed_runs_nothing(tmp_path):
    (tmp_path / "own.py").write_text("open('it_ran', 'w')")
    assert complete("cellseg-d2 evaluate --import own.py --pre", tmp_path) == ["--predictions"]
    assert not (tmp_path / "it_ran").exists()
