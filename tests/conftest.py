"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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
