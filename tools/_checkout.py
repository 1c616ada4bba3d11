"""Has the scripts of this folder use the package of the same checkout; nothing need be installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# For the processes that they start, such as the trainings of a cross-validation.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

from cellseg_d2.cli.common import run  # noqa: E402, F401
