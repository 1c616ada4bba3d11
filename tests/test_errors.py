"""What others' errors say within a sentence."""

import ast
import errno

import pytest

from cellseg_d2.cli.common import run
from cellseg_d2.errors import first_line, no_memory, one_line, system_error
from tests.plain import ROOT


def test_an_error_is_told_in_one_line():
    assert first_line(ValueError("wrong\nand more")) == "wrong"
    assert first_line(KeyError()) == "KeyError"
    assert one_line(ValueError(" wrong\n  and more")) == "ValueError: wrong and more"
    assert len(one_line(ValueError("x" * 10_000))) == 300


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "a.png"), "a.png: Permission denied"),
        (OSError("a library's own words"), "a library's own words"),
    ],
)
def test_the_system_s_errors_name_the_file_where_there_is_one(error, said):
    assert system_error(error) == said


def test_that_memory_is_full_is_never_taken_for_something_else():
    """Whoever catches any exception has let a MemoryError pass before, or told it as what it is."""
    for path in (ROOT / "cellseg_d2").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            caught: set[str] = set()
            for handler in getattr(node, "handlers", []):
                names = {
                    ast.unparse(name).rsplit(".")[-1] for name in ast.walk(handler.type or ast.Name("BaseException"))
                }
                broad = names & {"Exception", "BaseException"}
                ends = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
                assert not broad or "MemoryError" in caught or ends, f"{path}, line {handler.lineno}"
                caught |= names


def test_memory_that_does_not_suffice_is_a_sentence_of_every_command(capsys):
    def full():
        raise MemoryError

    with pytest.raises(SystemExit) as ended:
        run(full)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {no_memory('what was asked for')}\n"
