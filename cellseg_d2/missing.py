"""A helpful word instead of Python's own when Detectron2, which no package index has, is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

HELP = (
    "Detectron2 is not installed, and no package index has it under that name: type `cellseg-d2 install-detectron2` "
    "(the Python part of a known wheel, for any Python and system)"
)


class Detectron2Finder(MetaPathFinder):
    """Comes last: it is asked only when nothing else has found the package."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if fullname == "detectron2":
            raise ModuleNotFoundError(HELP, name="detectron2")


def explain_missing_detectron2() -> None:
    """Have ``import detectron2`` say what to type where it fails; harmless where it does not, and when called again."""
    if not any(isinstance(finder, Detectron2Finder) for finder in sys.meta_path):
        sys.meta_path.append(Detectron2Finder())
