"""Downloads that end: the libraries that download for us wait for a silent server without any limit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

SILENCE = 60.0  # seconds


@contextmanager
def limited_silence(seconds: float | None = None) -> Iterator[None]:
    """In the block, connections on which nothing comes for so long raise ``TimeoutError``; :data:`SILENCE` by default.

    It is for connections that are opened in the block and say nothing of a limit themselves.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE if seconds is None else seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
