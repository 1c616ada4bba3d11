"""Fixtures for all tests."""

import gc
import importlib
import logging
import os
import sys
import threading
from pathlib import Path

import hypothesis
import pytest
import tqdm

from cellseg_d2.cli.common import run
from cellseg_d2.processes import own_command
from tests.fuzz.cases import time_limit
from tests.plain import is_of_a_plain_module
from tests.quick_python import quick_python

# How long an example takes is the machine's, and no property of the code.
hypothesis.settings.register_profile("cellseg", deadline=None)
hypothesis.settings.load_profile("cellseg")
REPOSITORY = Path(__file__).resolve().parents[1]
# Some tests fork this process, and kill what they forked. Usually, tqdm shares a lock among them all, which then stays
# with the killed one for ever, and holds it for moments in a thread of its own.
tqdm.tqdm.set_lock(threading.RLock())
tqdm.tqdm.monitor_interval = 0


def sentences(stderr: str) -> list[str]:
    """What a command says on stderr beside the first line of those that need PyTorch."""
    return [line for line in stderr.splitlines() if line != "loading PyTorch …"]


def pytest_collection_modifyitems(items):
    """Coverage is that of the modules without PyTorch by their own tests on examples that everybody has.

    To watch all others would only take time: Hypothesis' thousands of cases take twice as long when watched.
    """
    for item in items:
        is_property = hasattr(item.obj, "hypothesis")
        if is_property or "shared_data" in item.fixturenames or not is_of_a_plain_module(item.path):
            item.add_marker(pytest.mark.no_cover)


def pytest_collection_finish():
    """What is imported by now stays: the collections of garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def no_curves(monkeypatch):
    """Trainings do not draw their curves, which takes longer than some iterations of the smallest network."""
    monkeypatch.setattr("cellseg_d2.engine.hooks.PlotCurves._plot", lambda self: None)


@pytest.fixture
def quick_trainings(monkeypatch):
    """Trainings that the package starts in processes of their own need not import the libraries anew."""

    def quick_command(name):
        python, *words = own_command(name)
        assert python == sys.executable
        return *quick_python(), *words

    monkeypatch.setattr("cellseg_d2.correction.training.own_command", quick_command)


@pytest.fixture
def call_tool(capsys, monkeypatch):
    """Calls a tool: its exit code, and what it printed; an error is one sentence and never a traceback."""
    # Detectron2's loggers keep writing to what was captured in the test in which they were set up.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def calling(module, *argv):
        main = importlib.import_module(f"cellseg_d2.cli.{module}").main
        capsys.readouterr()
        with time_limit(120), pytest.raises(SystemExit) as ended:
            run(lambda: main(list(map(str, argv))))
        printed, errors = capsys.readouterr()
        code = ended.value.code or 0
        assert "Traceback" not in errors
        sentences = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(sentences) == (code == 2), errors
        return code, printed + "".join(sentences)

    return calling
