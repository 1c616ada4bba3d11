"""Standard output and error that accept any text and never end a run: printed text may get lost, results may not."""

from __future__ import annotations

import codecs
import errno
import io
import logging
import os
import sys
from typing import Any, BinaryIO, TextIO, cast

# For consoles that lack them: what messages and help texts of this project use beyond ASCII.
_PLAIN = {
    **{"≤": "<=", "≥": ">=", "×": "x", "±": "+-", "½": "1/2", "²": "^2", "µ": "u", "μ": "u", "α": "alpha"},
    **{"–": "-", "—": "-", "−": "-", "…": "...", "→": "->", "·": "*", "°": " degrees", "█": "#"},
    **{"’": "'", "‘": "'", "“": '"', "”": '"'},
}
_ERRORS = "cellseg_d2.plain"


class _Unbreakable(io.RawIOBase):
    """A stream of bytes that keeps accepting data when its target is gone.

    Attributes:
        failure: why nothing is written any more; None as long as all is well.
    """

    def __init__(self, raw: io.RawIOBase, owner: TextIO):
        self._raw = raw
        self._owner = owner  # which closes it when nobody has it any more
        self.failure: OSError | None = None

    def write(self, data: Any) -> int | None:
        if self.failure is None:
            try:
                return self._raw.write(data)
            except OSError as error:
                self.failure = error
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def make_printing_safe() -> None:
    """Let this process print to any console, also to a closed one and to a pipe that is no longer read.

    Characters that the console lacks are replaced by others (``≤`` by ``<=``) or by escapes.
    """
    codecs.register_error(_ERRORS, _in_plain_letters)
    logging.raiseExceptions = False  # what cannot be logged is no reason for a traceback
    for number in range(3):  # a file of results would get the number of a stream that is closed, and its prints
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before Python started
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        setattr(sys, name, _safe(stream))


def printing_failure() -> OSError | None:
    """Why not all was printed that should have been; None where it was, or where the reader had seen enough."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        raw = _raw(stream)
        failure = raw.failure if isinstance(raw, _Unbreakable) else None
        if failure is not None and failure.errno not in (errno.EPIPE, errno.EBADF):
            return failure
    return None


def _raw(stream: TextIO) -> io.RawIOBase | None:
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # where Python does not buffer, there is nothing between
    return raw if isinstance(raw, io.RawIOBase) else None


def _safe(stream: TextIO) -> TextIO:
    raw = _raw(stream)
    if isinstance(raw, _Unbreakable) or not isinstance(stream, io.TextIOWrapper):  # a notebook's, or a test's
        return stream
    if raw is None:
        stream.reconfigure(errors=_ERRORS)
        return stream
    stream.flush()
    unbreakable = _Unbreakable(raw, stream)
    return io.TextIOWrapper(
        cast(BinaryIO, unbreakable if stream.write_through else io.BufferedWriter(unbreakable)),
        encoding=stream.encoding,
        errors=_ERRORS,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _in_plain_letters(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    given = error.object[error.start : error.end]
    text = "".join(_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in given)
    return text, error.end
