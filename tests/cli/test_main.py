"""``cellseg-d2``: dispatch to the commands, and texts in the words by which it was called."""

import importlib
import sys

import pytest

import cellseg_d2
from cellseg_d2.cli import commands, common, main
from cellseg_d2.cli.commands import COMMANDS
from cellseg_d2.errors import CellSegError


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
        ("train", "did you mean train-net?"),
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


def test_errors_name_commands_as_they_were_called(call, monkeypatch):
    def fail(argv):
        raise CellSegError(
            "/mine/tools/infer.py, ./tools/infer.py: python tools/convert_to_coco.py makes it, tools/x.py"
        )

    monkeypatch.setattr(importlib.import_module("cellseg_d2.cli.evaluate"), "main", fail)
    said = "/mine/tools/infer.py, ./tools/infer.py: cellseg-d2 convert-to-coco makes it, tools/x.py"
    assert call("evaluate")[1].err == f"error: {said}\n"


@pytest.mark.parametrize(
    ("program", "script"),
    [
        ("tools/infer.py", True),
        ("/a/b/tools/cross_validate.py", True),
        ("train_net.py", True),
        ("/bin/cellseg-d2", False),
        ("C:/bin/cellseg-d2.exe", False),
        ("/a/cellseg_d2/cli/__main__.py", False),
        ("mine.py", False),
        ("", False),
    ],
)
def test_words_follow_the_call(monkeypatch, program, script):
    monkeypatch.setattr(sys, "argv", [program, "--a"])
    text = "a python tools/train_net.py --b, see tools/fit_anchors.py."
    other = "a cellseg-d2 train-net --b, see cellseg-d2 fit-anchors."
    assert common.as_called(text) == (text if script else other)
    line = common.command_line("train_net", ["A", "b c"])
    assert line == ("python tools/train_net.py A 'b c'" if script else "cellseg-d2 train-net A 'b c'")
    parser = common.make_parser("infer", "See tools/evaluate.py.", "  python tools/infer.py x")
    sub = parser.add_subparsers().add_parser("sub", description="As tools/report.py")
    for shown in (parser, sub):
        assert ("tools/" in shown.format_help()) == script
        assert (commands.PROGRAM in shown.format_help()) != script
