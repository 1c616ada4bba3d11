"""The exception that commands show to users as one sentence, and messages of other errors for such sentences."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Python's own message, that there is no such module, does not say how to get it: no package index has it.
NO_DETECTRON2 = (
    "Detectron2 is not installed, and no package index has it under that name: type `cellseg-d2 install-detectron2` "
    "(the Python part of a known wheel, for any Python and system)"
)

NO_NAPARI = "napari is not installed: type `pip install 'cellseg_d2[napari]'`"


class CellSegError(Exception):
    """Something is wrong with the input. The message says in one sentence what, where, and what to do about it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a mistyped word: which known one comes nearest; empty where none is near.

    Example:
        >>> did_you_mean("--diamter", ["--device", "--diameter"])
        '; did you mean --diameter?'
    """
    spelled = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), spelled, n=1, cutoff=0.6)
    return f"; did you mean {spelled[near[0]]}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def printable(text: object) -> str:
    r"""A name from outside as one line of text for any console: characters that cannot be printed are escaped.

    Example:
        >>> print(printable("a\rb.png"), printable("\udcff.png"))
        a\rb.png \udcff.png
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def one_line(error: BaseException) -> str:
    """The type and message of an error on one line, truncated to 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def no_memory(what: object) -> CellSegError:
    """The error of something that does not fit into memory, which is never mistaken for a damaged file."""
    return CellSegError(f"{what} does not fit into memory: free some, or work on less at a time")


def sentence(error: CellSegError | ModuleNotFoundError | OSError | MemoryError) -> str | None:
    """What is told of an error that ends a command, instead of a traceback; None where the program is at fault."""
    if isinstance(error, CellSegError):
        return str(error)
    if isinstance(error, MemoryError):
        return str(no_memory("what was asked for"))
    if isinstance(error, ModuleNotFoundError):
        return NO_DETECTRON2 if error.name == "detectron2" else None
    return None if error.strerror is None else system_error(error)


def reason_of(error: CellSegError | MemoryError, what: object) -> str:
    """Why ``what`` could not be done, in a sentence."""
    return str(error if isinstance(error, CellSegError) else no_memory(what))


def system_error(error: OSError) -> str:
    """The system's message, after the name of the file if the system gives one; for a full disk it does not."""
    return (f"{error.filename}: " if error.filename else "") + (error.strerror or str(error))
