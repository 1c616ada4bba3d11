"""A server that accepts a connection and then says nothing is not waited for without end."""

import socket
import time
import urllib.request

import pytest

from cellseg_d2.io.network import limited_silence


@pytest.fixture
def silent_server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights.pth"


def test_silence_ends(silent_server):
    started = time.monotonic()
    with pytest.raises(TimeoutError), limited_silence(0.2):
        urllib.request.urlopen(silent_server)
    assert time.monotonic() - started < 30
    assert socket.getdefaulttimeout() is None, "only in the block"
