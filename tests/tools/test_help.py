"""Every tool explains itself at once, and says what is wrong in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = sorted(
    path.name for path in (Path(__file__).parents[2] / "tools").glob("*.py") if not path.name.startswith("_")
)
HEAVY = ("torch", "detectron2", "cv2", "pandas", "scipy", "matplotlib")
PROBE = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as error:
    assert not error.code, error.code
heavy = [name for name in {heavy!r} if name in sys.modules]
assert not heavy, f"--help imports {{heavy}}"
"""


@pytest.mark.parametrize("tool", TOOLS)
def test_help_answers_without_heavy_imports(repository, tool):
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), str(repository / "tools" / tool)]
    # As from a shell: the tool's own folder comes first in the path.
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(repository / "tools")})
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout
    assert "examples:" in result.stdout
    assert f"python tools/{tool}" in result.stdout


def test_train_net_s_help_names_all_options_of_detectron2(repository):
    from detectron2.engine import default_argument_parser

    text = (repository / "tools/train_net.py").read_text()
    for action in default_argument_parser()._actions:
        for option in action.option_strings:
            assert f"{option} " in text or f"{option}," in text, f"{option} is not in the help"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train_net.py", "--config-file", "none.yaml"], "no configuration file"),
        (["train_net.py", "--eval-only"], "--config-file is missing"),
        (["infer.py", "--config-file", "none.yaml", "--input", "none.png", "--output", "out"], "none.png"),
    ],
)
def test_mistakes_are_one_sentence(repository, arguments, message, tmp_path):
    command = [sys.executable, str(repository / "tools" / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
