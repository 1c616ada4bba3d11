"""What the contracts of import-linter leave: imports that really run, and lists that say the same."""

import ast
import subprocess
import sys

from tests.plain import ROOT, contract, listed, plain_modules, project

# What only the upper layers may know.
HEAVY = ("torch", "torchvision", "detectron2", "fvcore", "iopath", "yacs")
# Refuses these packages even where they are installed, and runs nothing but imports.
BLOCKED = f"""
import importlib, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
# Its package registers networks when it is imported.
NOT_ALONE = {"cellseg_d2.modeling.anchors"}


def run_blocked(*names):
    command = [sys.executable, "-c", BLOCKED, *names]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_plain_modules_and_the_commands_import_where_torch_is_refused():
    """The commands import what they need when they know what is asked of them."""
    plain = plain_modules().keys() - NOT_ALONE
    assert len(plain) > 60
    commands = [f"cellseg_d2.cli.{path.stem}" for path in (ROOT / "cellseg_d2/cli").glob("[!_]*.py")]
    assert len(commands) > 10
    result = run_blocked(*sorted(plain), *commands)
    assert result.returncode == 0, result.stderr
    assert "torch is blocked" in run_blocked("cellseg_d2.data.label_masks").stderr


def test_coverage_is_measured_of_the_modules_without_torch():
    assert contract()["forbidden_modules"] == list(HEAVY)
    covered = project()["tool"]["coverage"]["report"]["include"]
    assert [path.removesuffix(".py").removesuffix("/*") for path in covered] == [n.replace(".", "/") for n in listed()]
    for path in covered:
        assert (ROOT / path.replace("/*", "/__init__.py")).is_file(), path


def test_types_are_checked_of_all_modules_but_those_that_are_named():
    mypy = project()["tool"]["mypy"]
    assert mypy["files"] == ["cellseg_d2"]
    (left_out,) = (entry["module"] for entry in mypy["overrides"] if entry.get("ignore_errors"))
    assert not set(left_out) & plain_modules().keys()
    for name in left_out:
        path = ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), name


def test_tools_know_the_commands_only():
    for path in (ROOT / "tools").glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        own = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
        command = "common" if path.stem == "_checkout" else path.stem
        assert own <= {"_checkout", f"cellseg_d2.cli.{command}"}, path.name
