"""What others' errors say within a sentence."""

import errno

import pytest

from cellseg_d2.errors import first_line, one_line, system_error


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
