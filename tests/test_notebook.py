"""The notebook of the documentation runs from its first cell to its last, and shows what it showed when written."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs").glob("*.ipynb"))


def shown(cell):
    """Kinds of what a cell shows, and its text without numbers, whose last digits differ with the processor."""
    kinds = [(output.output_type, sorted(output.get("data", {}))) for output in cell.get("outputs", [])]
    texts = [output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])]
    return kinds, [re.findall(r"[A-Za-z_]+", text) for text in texts]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs_and_shows_the_same(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    written = nbformat.read(path, as_version=4)
    again = nbformat.read(path, as_version=4)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, after in zip(written.cells, again.cells, strict=True):
        assert shown(before) == shown(after), before.source
    assert any("image/png" in kinds for cell in written.cells for _, kinds in shown(cell)[0])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_small_and_says_nothing_of_the_machine_that_it_ran_on(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 600_000
    assert not re.search(r"stderr|/(tmp|home|root|work|usr)/", text)


def test_there_is_one():
    assert NOTEBOOKS
