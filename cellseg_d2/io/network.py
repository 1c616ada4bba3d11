"""Time limits for downloads: the libraries that download for this project wait for a silent server without limit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

SILENCE = 60.0  # seconds


@contextmanager
def limited_silence(seconds: float | None = None) -> Iterator[None]:
    """In the block, connections that receive nothing for this long raise ``TimeoutError``; :data:`SILENCE` by default.

    It is for connections that are opened in the block and say nothing of a limit themselves.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE if seconds is None else seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
