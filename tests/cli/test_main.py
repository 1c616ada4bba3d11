"""``cellseg-d2``: dispatch to the commands, and the one way in which texts name them."""

import importlib
import re
import sys

import pytest

import cellseg_d2
from cellseg_d2.cli import common, main
from cellseg_d2.cli.commands import COMMANDS
from cellseg_d2.errors import CellSegError
from tests.conftest import REPOSITORY


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command; returns its exit code and what it printed."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["/somewhere/bin/cellseg-d2", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    return call


@pytest.mark.parametrize("word", ["tune-postprocess", "tune_postprocess"])
def test_the_named_command_gets_the_other_words_and_its_code_is_the_exit_code(call, monkeypatch, word):
    module = importlib.import_module("cellseg_d2.cli.tune_postprocess")
    got = []
    monkeypatch.setattr(module, "main", lambda argv: got.append(argv) or 3)
    assert call(word, "--a", "--help", "b_c")[0] == 3
    assert got == [["--a", "--help", "b_c"]]


def test_all_commands_can_be_called():
    for name in COMMANDS:
        assert callable(importlib.import_module(f"cellseg_d2.cli.{name.replace('-', '_')}").main)


def test_version_and_help(call):
    assert call("--version")[1].out == f"cellseg-d2 {cellseg_d2.__version__}\n"
    assert call()[1].out == call("--help")[1].out == call("-h")[1].out != ""
    assert [call(*words)[0] for words in ((), ("--help",), ("--version",))] == [0, 0, 0]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("train-nets", "did you mean train-net?"),
        ("Infer", "did you mean infer?"),
        ("convert_to_cocoo", "did you mean convert-to-coco?"),
        ("qqq", "cellseg-d2 --help lists them"),
        ("--qqq", "cellseg-d2 --help lists them"),
        ("common", "cellseg-d2 --help lists them"),
        ("", "cellseg-d2 --help lists them"),
    ],
)
def test_an_unknown_command_is_one_sentence_with_the_nearest_name(call, word, hint):
    code, printed = call(word)
    assert (code, printed.out) == (2, "")
    assert printed.err == f"error: there is no command {word!r}; {hint}\n"


def test_an_error_is_printed_as_it_is(call, monkeypatch):
    def fail(argv):
        raise CellSegError("/mine/tools/infer.py: cellseg-d2 convert-to-coco makes it")

    monkeypatch.setattr(importlib.import_module("cellseg_d2.cli.evaluate"), "main", fail)
    assert call("evaluate")[1].err == "error: /mine/tools/infer.py: cellseg-d2 convert-to-coco makes it\n"


def test_records_have_the_command_with_its_arguments():
    assert common.command_line("train_net", ["A", "b c"]) == "cellseg-d2 train-net A 'b c'"


def test_all_texts_name_a_command_in_one_way():
    script = re.compile(r"\btools/[a-z]\w+\.py")
    files = [*(REPOSITORY / "cellseg_d2").rglob("*.py"), *(REPOSITORY / "configs").rglob("*.yaml")]
    assert len(files) > 200
    named = {path: found[0] for path in files if (found := script.search(path.read_text(encoding="utf-8")))}
    assert not named
