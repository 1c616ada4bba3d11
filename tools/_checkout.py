"""What each script of this folder does: run the command of its name, of the package in the same checkout."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_command(script: str) -> None:
    """Run the command that the file ``script`` is named after, and exit with its code. Nothing need be installed."""
    sys.path.insert(0, str(ROOT))
    # For the processes that it starts, such as the trainings of a cross-validation.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

    from cellseg_d2.cli.common import run

    run(importlib.import_module(f"cellseg_d2.cli.{Path(script).stem}").main)  # noqa: TID251
