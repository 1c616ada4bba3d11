"""Imports point downward: masks, metrics and conversion know neither PyTorch nor Detectron2."""

import ast
import subprocess
import sys

from tests.floors import PACKAGE, ROOT, floor_of, modules, plain_modules

# What only the upper floors may know.
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
MODULES = dict(modules())


def imported_modules(tree, package):
    """Full names of what a module imports, also inside functions and for type checks only, and also relatively."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:  # `from package import module` imports the module
                name = f"{base}.{alias.name}"
                yield name if name.removeprefix("cellseg_d2.") in MODULES else base


def imports_of(path):
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    return list(imported_modules(ast.parse(path.read_text(encoding="utf-8")), package))


def imported_by_name(path):
    """The lines that import a module whose name is put together at run time."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    calls = (ast.unparse(node) for node in nodes if isinstance(node, ast.Call))
    return [call for call in calls if "import_module(" in call or "__import__(" in call]


def run_blocked(*names):
    command = [sys.executable, "-c", BLOCKED, *names]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_all_ways_to_import_are_seen():
    source = """
import cellseg_d2.masks.rle
from cellseg_d2.masks.crop import MaskCrop
from cellseg_d2.inference import model
def later():
    from . import trainer
    from ..data.dataset_mapper import image_to_tensor
    import torch.nn
"""
    assert list(imported_modules(ast.parse(source), "cellseg_d2.engine")) == [
        "cellseg_d2.masks.rle",
        "cellseg_d2.masks.crop",
        "cellseg_d2.inference.model",
        "cellseg_d2.engine.trainer",
        "cellseg_d2.data.dataset_mapper",
        "torch.nn",
    ]


def test_imports_point_downward():
    upward = [
        f"{name} (floor {floor_of(name)}) imports {imported}"
        for name, path in MODULES.items()
        for imported in imports_of(path)
        if imported.startswith("cellseg_d2.") and floor_of(imported.removeprefix("cellseg_d2.")) > floor_of(name)
    ]
    assert not upward, "\n".join(upward)


def test_the_package_s_own_shortcut_is_for_users():
    """``from cellseg_d2 import CellSegmenter`` would hide from which floor it comes."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "cellseg_d2" and not node.level:
                names = {alias.name for alias in node.names} - {"__version__"}
                assert not any(n not in MODULES for n in names), f"{name} imports {names} from the package"


def test_modules_are_imported_by_name_in_known_places_only():
    """Such an import is seen by no test of floors; the commands import theirs, and the formats those of ``export``."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    places = {str(path.relative_to(ROOT)) for path in files if imported_by_name(path)}
    assert places == {"cellseg_d2/cli/__init__.py", "cellseg_d2/export/formats.py", "tools/_checkout.py"}
    assert "cellseg_d2.export." in " ".join(imported_by_name(PACKAGE / "export/formats.py"))


def test_the_lower_floors_name_no_heavy_package():
    heavy = [
        f"{name} imports {imported}"
        for name, path in plain_modules()
        for imported in imports_of(path)
        if imported.split(".")[0] in HEAVY
    ]
    assert not heavy, "\n".join(heavy)


def test_the_lower_floors_and_the_commands_import_where_torch_is_refused():
    """The commands import what they need when they know what is asked of them."""
    plain = [f"cellseg_d2.{name}" for name, _ in plain_modules()]
    assert len(plain) > 60
    commands = [f"cellseg_d2.{name}" for name in MODULES if name.startswith("cli.") and name != "cli.__main__"]
    assert len(commands) > 10
    result = run_blocked(*plain, *commands)
    assert result.returncode == 0, result.stderr
    assert "torch is blocked" in run_blocked("cellseg_d2.data.label_masks").stderr


def test_tools_know_the_commands_only():
    for path in (ROOT / "tools").glob("*.py"):
        own = [name for name in imports_of(path) if name.split(".")[0] not in sys.stdlib_module_names]
        assert set(own) <= {"_checkout", "cellseg_d2.cli.common"}, path.name


def test_the_model_zoo_is_never_imported():
    """It needs ``pkg_resources``, which is gone from setuptools."""
    for folder in ("cellseg_d2", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "detectron2.model_zoo" not in path.read_text(encoding="utf-8"), path


def test_files_can_be_read_in_one_sitting():
    long = {str(p): n for _, p in modules() if (n := len(p.read_text(encoding="utf-8").splitlines())) > 350}
    assert not long
