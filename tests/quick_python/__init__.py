"""A Python that starts at once, for tests of programs: it begins as a copy of one that has imported the libraries.

A fresh Python takes seconds to import PyTorch and Detectron2, and the tests start many. :func:`quick_python` is used
like ``sys.executable``::

    subprocess.run([*quick_python(), "tools/infer.py", "--help"], capture_output=True, cwd=repository)

The program runs in a process of its own, with the arguments, the folder, the environment and the standard streams (also
closed ones) that are given, and its end is that of the command. This package's own modules are imported anew, so that
one that a command forgets to import is missed. What a test says of the start itself (what is imported, and when, or
the memory that it takes) needs ``sys.executable``.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent


@functools.cache
def quick_python() -> tuple[str, ...]:
    """The words that start it; the first call starts the process that is copied, which ends with this one."""
    place = tempfile.mkdtemp(prefix="quick")  # short: the name of a socket may have about 100 characters
    address = os.path.join(place, "socket")
    own = ("PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONPATH")  # each program has its own
    environment = {name: value for name, value in os.environ.items() if name not in own}
    server = subprocess.Popen(
        [sys.executable, FOLDER / "server.py", address],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def end() -> None:
        server.stdin.close()
        server.wait()
        # No TemporaryDirectory: it is removed with its last reference, also by copies of this process, which drop what
        # is to be done at exit.
        shutil.rmtree(place)

    atexit.register(end)
    assert server.stdout.readline() == b"ready\n", "it says on stderr why it did not start"
    return sys.executable, "-IS", str(FOLDER / "client.py"), address
