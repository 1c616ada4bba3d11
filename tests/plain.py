"""The modules that know neither PyTorch nor Detectron2, as import-linter's contract in pyproject.toml lists them."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Tests of commands that are also those of the modules below them, which have none of their own.
ALSO_PLAIN = ("cellseg_d2.cli.convert_to_coco", "cellseg_d2.cli.pseudo_label")


@cache
def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@cache
def contract() -> dict[str, Any]:
    """The contract that keeps PyTorch out of them."""
    (found,) = (c for c in project()["tool"]["importlinter"]["contracts"] if c.get("id") == "plain")
    return found


def listed() -> list[str]:
    """Names of modules and of folders."""
    return contract()["source_modules"]


@cache
def plain_modules() -> dict[str, Path]:
    """Name and file of each module; those of a listed folder are all that it holds."""
    paths = [ROOT.joinpath(*name.split(".")) for name in listed()]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) or [path.with_suffix(".py")])]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def is_of_a_plain_module(test: Path) -> bool:
    """Whether a file of tests is that of plain modules; the tests mirror the package."""
    folder = ".".join(["cellseg_d2", *test.relative_to(ROOT / "tests").parent.parts])
    return folder in listed() or f"{folder}.{test.stem.removeprefix('test_')}" in (*plain_modules(), *ALSO_PLAIN)
