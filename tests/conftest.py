"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

from tests.plain import is_of_a_plain_module

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items):
    """Coverage is that of the modules without PyTorch by their own tests on examples that everybody has.

    To watch all others would only take time: Hypothesis' thousands of cases take twice as long when watched.
    """
    for item in items:
        is_property = hasattr(item.obj, "hypothesis")
        if is_property or "shared_data" in item.fixturenames or not is_of_a_plain_module(item.path):
            item.add_marker(pytest.mark.no_cover)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images with masks, which may not be redistributed: ``$CELLSEG_TEST_DATA`` or ``../shared/data``."""
    folder = Path(os.environ.get("CELLSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data is not at hand: {folder} does not exist (set CELLSEG_TEST_DATA)")
    return folder
