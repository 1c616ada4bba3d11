"""Without Detectron2, what needs it says what to type, and what does not need it works."""

import subprocess
import sys

from tests.conftest import sentences

WITHOUT = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] == "detectron2" else find(name, *rest)
"""


def run(code, cwd):
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, cwd=cwd)


def test_the_class_for_users_says_what_to_type(repository):
    result = run("from cellseg_d2 import CellSegmenter", repository)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: Detectron2 is not installed")
    assert "`cellseg-d2 install-detectron2`" in last
    assert "Detectron2 is not installed" not in run("import cellseg_d2.nothing", repository).stderr


def test_tools_say_it_in_one_sentence(repository):
    code = """
import runpy, sys
sys.path.insert(0, "tools")
sys.argv = ["tools/train_net.py", "--config-file", "configs/quickstart/instant_test.yaml"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    result = run(code, repository)
    assert result.returncode == 2
    (sentence,) = sentences(result.stderr)
    assert sentence.startswith("error: Detectron2 is not installed")


def test_the_lower_floors_do_without_it(repository):
    code = "from cellseg_d2.metrics.competition import score_image; print(score_image([], []).score)"
    assert run(code, repository).stdout.strip() == "1.0"


def test_imports_of_others_are_left_alone(repository):
    code = "import sys; before = list(sys.meta_path); import cellseg_d2; print(sys.meta_path == before)"
    assert run(code, repository).stdout.strip() == "True"


def test_other_packages_may_go_on_without_it(repository):
    code = """
import cellseg_d2
try:
    import detectron2
except ImportError:
    print("optional")
"""
    assert run(code, repository).stdout.strip() == "optional"
