"""What pyproject.toml and setup.py put into a wheel, and that other files say the same."""

import re
import runpy
from pathlib import Path

import setuptools

import cellseg_d2
from tests.plain import project


def test_a_wheel_has_all_that_is_no_python(repository, monkeypatch):
    words = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: words.update(given))
    monkeypatch.chdir(repository)
    runpy.run_path("setup.py")
    assert words["package_dir"] == {"cellseg_d2.configs": "configs"}
    assert {"cellseg_d2", "cellseg_d2.cli", "cellseg_d2.configs"} <= set(words["packages"])
    patterns = project()["tool"]["setuptools"]["package-data"]
    for package, folder, kinds in (("cellseg_d2", "cellseg_d2", "*"), ("cellseg_d2.configs", "configs", "*.yaml")):
        taken = {path for pattern in patterns[package] for path in Path(folder).glob(pattern) if path.is_file()}
        present = {path for path in Path(folder).rglob(kinds) if path.is_file() and path.suffix not in (".py", ".pyc")}
        assert taken == present, package
        assert len(taken) > 5


def test_there_is_one_version(repository):
    version = cellseg_d2.__version__
    assert "version" in project()["project"]["dynamic"]
    assert f"\nversion: {version}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+?),? ", (repository / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert newest == version


def test_commits_are_checked_by_the_same_ruff_as_all_else(repository):
    pinned = re.search(r"^ruff==(\S+)$", (repository / "constraints.txt").read_text(encoding="utf-8"), re.M)[1]
    hooks = (repository / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"ruff==([\d.]+)", hooks)) == {pinned}
