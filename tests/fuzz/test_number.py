"""How many cases are looked at in each run of the tests."""

import importlib
from pathlib import Path

from tests.fuzz.cases import CASES


def test_at_least_ten_thousand_cases():
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.fuzz.{path.stem}")
    assert sum(CASES.values()) >= 10_000, CASES
