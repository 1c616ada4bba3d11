"""Every command explains itself at once, installed or as a script, and says what is wrong in one sentence."""

import os
import subprocess
import sys

import pytest

from cellseg_d2.cli import help_text
from cellseg_d2.cli.commands import COMMANDS, GROUPS
from tests.conftest import REPOSITORY, sentences
from tests.quick_python import quick_python

HEAVY = ("torch", "detectron2", "cv2", "pandas", "scipy", "matplotlib")
PROBE = f"""
import runpy, sys
way, name, sys.argv = sys.argv[1], sys.argv[2], [sys.argv[2], *sys.argv[3:]]
try:
    if way == "script":
        runpy.run_path(name, run_name="__main__")
    else:
        from cellseg_d2.cli import main
        main()
except SystemExit as error:
    assert not error.code, error.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, f"--help imports {{heavy}}"
"""
SHARED = ("benchmark_options", "commands", "common", "completion", "parser", "picture_options", "postprocess_options")
SHARED += ("label_options", "numbers", "scored_options")
SCRIPTS = {name: f"tools/{name.replace('-', '_')}.py" for name in COMMANDS}


def probe(way, *words, path):
    command = [sys.executable, "-c", PROBE, way, *words]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(path)}, cwd="/")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_table_has_every_command_and_every_script():
    for folder in ("cellseg_d2/cli", "tools"):
        files = (REPOSITORY / folder).glob("[a-z]*.py")
        names = {path.stem.replace("_", "-") for path in files if path.stem not in SHARED}
        assert names == set(COMMANDS), folder
    assert sum(map(len, GROUPS.values())) == len(COMMANDS), "a command is in one group"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_answers_without_heavy_imports_and_is_the_same_for_script_and_command(name):
    # As from a shell: the script's own folder comes first in the path.
    said = probe("script", str(REPOSITORY / SCRIPTS[name]), "--help", path=REPOSITORY / "tools")
    assert said == probe("command", "cellseg-d2", name, "--help", path=REPOSITORY)
    assert f"usage: cellseg-d2 {name} " in said
    assert f"  cellseg-d2 {name} " in said.split("examples:")[1]
    assert "tools/" not in said


def test_the_list_of_commands_is_aligned_and_light():
    said = probe("command", "cellseg-d2", path=REPOSITORY)
    assert said.strip() == help_text()
    starts = {line.index(summary) for line in said.splitlines() for summary in COMMANDS.values() if summary in line}
    assert len(starts) == 1
    assert all(f"\n  {name} " in said for name in COMMANDS)
    assert max(map(len, said.splitlines())) <= 120


def test_train_net_takes_all_options_of_detectron2(capsys):
    from detectron2.engine import default_argument_parser

    from cellseg_d2.cli import train_net

    with pytest.raises(SystemExit):
        train_net.main(["--help"])
    said = capsys.readouterr().out
    for action in default_argument_parser()._actions:
        assert all(f"{option} " in said or f"{option}," in said for option in action.option_strings)
    args = vars(train_net.parse_args(["--config-file", "f", "--resume", "SEED", "3"]))
    stock = vars(default_argument_parser().parse_args(["--config-file", "f", "--resume", "SEED", "3"]))
    assert args.keys() == stock.keys()
    assert {name for name in args if args[name] != stock[name]} == {"dist_url"}, "a port is found when it is needed"


@pytest.mark.parametrize(
    ("words", "needs_it"),
    [
        (["train-net", "--config-file", "none.yaml"], True),
        (["infer", "--input", "README.md", "--output", "{out}"], True),
        (["fit-anchors", "--json", "none.json"], True),
        (["infer", "--input", "none.png", "--output", "{out}"], False),
        (["evaluate", "--predictions", "none.csv", "--ground-truth", "none.csv"], False),
    ],
)
def test_a_command_says_at_once_that_it_loads_pytorch_where_it_does(words, needs_it, tmp_path):
    """PyTorch's stand-in ends the command where it is imported; the next test has the real one."""
    (tmp_path / "torch.py").write_text("raise SystemExit(77)")
    command = [sys.executable, "-m", "cellseg_d2.cli", *(word.format(out=tmp_path / "out") for word in words)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert (result.returncode == 77) == needs_it, result.stderr
    assert (result.stderr == "loading PyTorch …\n") == needs_it, result.stderr
    assert needs_it or "PyTorch" not in result.stderr


@pytest.mark.parametrize(
    ("way", "arguments", "message", "fresh"),
    [
        ("script", ["train-net", "--config-file", "none.yaml"], "no configuration file", True),
        ("command", ["train-net", "--eval-only", "--config-file", "none.yaml"], "no configuration file", False),
        (
            "command",
            ["infer", "--config-file", "none.yaml", "--input", "none.png", "--output", "out"],
            "none.png",
            False,
        ),
    ],
)
def test_mistakes_are_one_sentence(way, arguments, message, fresh, tmp_path):
    """That PyTorch is loaded is said once, and where it is there already not at all."""
    name, *rest = arguments
    start = [str(REPOSITORY / SCRIPTS[name])] if way == "script" else ["-m", "cellseg_d2.cli", name]
    command = [*((sys.executable,) if fresh else quick_python()), *start, *rest]
    environment = {"PYTHONPATH": "" if way == "script" else str(REPOSITORY)}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 2
    (sentence,) = sentences(result.stderr)
    assert sentence.startswith("error: ")
    assert message in sentence
    assert result.stderr.splitlines().count("loading PyTorch …") == fresh
    assert not (tmp_path / "out").exists()
