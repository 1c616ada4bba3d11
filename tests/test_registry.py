"""Registries find decorated functions without importing them, and tell what they cannot find."""

import sys

import pytest

from cellseg_d2.errors import CellSegError
from cellseg_d2.registry import Entry, Registry, import_all, table

ONE = '''
from {package}.shelf import SHELF

@SHELF.register("one", suffix=".one")
def first(text):
    """The first.

    More of it.
    """
    return text + "1"
'''
BROKEN = (
    'from {package}.shelf import SHELF\n\n@SHELF.register("broken")\ndef broken():\n    pass\n\nraise OSError("boom")\n'
)


@pytest.fixture
def shelf(tmp_path, monkeypatch, request):
    """A registry of a package with two entries, one of which cannot be imported."""
    name = f"shop_{abs(hash(request.node.name))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "shelf.py").write_text(
        f"from cellseg_d2.registry import Entry, Registry\nSHELF = Registry('SHELF', '{name}', 'the thing', Entry)\n"
    )
    (folder / "a.py").write_text(ONE.format(package=name))
    (folder / "b.py").write_text(BROKEN.format(package=name))
    monkeypatch.syspath_prepend(str(tmp_path))
    return __import__(f"{name}.shelf", fromlist=["SHELF"]).SHELF


def test_entries_are_known_without_an_import_and_called_with_one(shelf):
    package = shelf["one"].module.rpartition(".")[0]
    assert list(shelf) == ["broken", "one"]
    assert (shelf["one"].summary, shelf["one"].details) == ("The first", {"suffix": ".one"})
    assert f"{package}.a" not in sys.modules
    assert table(shelf.summaries) == "  broken  \n  one     The first\n"
    assert shelf["one"]("a") == "a1"
    assert f"{package}.a" in sys.modules
    assert f"{package}.b" not in sys.modules
    with pytest.raises(OSError, match="boom"):
        shelf["broken"]()


def test_functions_from_elsewhere_are_entries_like_others(shelf):
    @shelf.register("mine", suffix=".mine")
    def mine():
        """Mine."""
        return 3

    assert shelf["mine"]() == mine() == 3
    assert (shelf["mine"].summary, shelf["mine"].details["suffix"]) == ("Mine", ".mine")
    with pytest.raises(CellSegError, match=r"the thing 'one' of tests\S* is there already, in shop_\d+\.a: rename"):
        shelf.register("one")(mine)


def test_an_unknown_name_is_told_with_those_that_there_are(shelf):
    assert shelf.choose("one", "SOME.KEY") is shelf["one"]
    with pytest.raises(CellSegError, match=r"SOME\.KEY names 'two', which is not one of: broken, one"):
        shelf.choose("two", "SOME.KEY")


def test_all_files_of_a_package_are_imported(shelf):
    with pytest.raises(OSError, match="boom"):
        import_all(shelf["one"].module.rpartition(".")[0])


def test_what_is_no_entry_is_passed_over():
    assert list(Registry("NOBODY", "cellseg_d2.io", "nothing", Entry)) == []
