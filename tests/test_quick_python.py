"""The Python that starts at once is one like any other."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.quick_python import quick_python

# Writes what a program sees of its start into the file that it is given.
DESCRIBE = """
import json, os, sys
streams = [
    stream and [stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.fileno(),
                stream.mode, type(stream.buffer).__name__, stream.isatty()]
    for stream in (sys.stdin, sys.stdout, sys.stderr)
]
free = os.open(os.devnull, os.O_RDONLY)
seen = [streams, free < 3, sys.argv, sys.path, os.getcwd(), dict(os.environ), __name__]
seen.append(getattr(sys.modules["__main__"], "__file__", None) and os.path.abspath(__file__))
file = open(sys.argv[1], "w", encoding="utf-8")
json.dump(seen, file)
file.close()
print("é" if "b" in sys.argv else "said")
sys.exit(len(sys.argv))
"""
REDIRECTIONS = ["", "<&- >&- 2>&-", ">&-", "2>&-", ">/dev/full", ">/dev/full 2>&1", "| :", "< /dev/null 2> /dev/full"]


def both(folder, words, redirection="", **environment):
    """What the two have seen and said, and how they ended."""
    found = []
    for python in ((sys.executable,), quick_python()):
        (folder / "seen.json").unlink(missing_ok=True)
        command = ["sh", "-c", f'"$@" {redirection}', "sh", *python, *words]
        variables = {**os.environ, "PYTHONPATH": f"{folder / 'other'}{os.pathsep}", **environment}
        ended = subprocess.run(command, capture_output=True, cwd=folder, env=variables)
        found.append((json.loads((folder / "seen.json").read_text()), ended.stdout, ended.stderr, ended.returncode))
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/describe.py").write_text(DESCRIBE)
    return tmp_path


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_streams_are_those_of_python(folder, redirection, unbuffered):
    words = ["scripts/describe.py", "seen.json"]
    real, quick = both(folder, words, redirection, PYTHONUNBUFFERED=unbuffered)
    assert quick[0] == real[0]
    assert (quick[1], quick[3]) == (real[1], real[3])
    assert bool(quick[2]) == bool(real[2])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8", "ascii:replace"])
def test_letters_are_those_of_python(folder, encoding):
    real, quick = both(folder, ["scripts/describe.py", "seen.json", "b"], PYTHONIOENCODING=encoding)
    assert quick[0] == real[0]
    assert (quick[1], quick[3]) == (real[1], real[3])
    assert quick[2].splitlines()[-1:] == real[2].splitlines()[-1:], "the same error, where there is one"


@pytest.mark.parametrize(
    "start", [["-c", DESCRIBE], ["-m", "scripts.describe"], ["scripts/describe.py"], ["-P", "-c", DESCRIBE]]
)
def test_arguments_and_places_are_those_of_python(folder, start):
    real, quick = both(folder, [*start, "seen.json", "a b", "é"], OWN="1")
    assert quick == real


@pytest.mark.parametrize(
    "code",
    [
        *("pass", "import sys; sys.exit(True)", "raise SystemExit('a sentence')", "raise ValueError('why')"),
        *("import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)", "import os; os.abort()"),
        *("import atexit; atexit.register(print, 'last')", "raise SystemExit(-1)"),
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
    ],
)
def test_ends_are_those_of_python(code):
    real, quick = (
        subprocess.run([*python, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        for python in ((sys.executable,), quick_python())
    )
    assert (quick.returncode, quick.stdout) == (real.returncode, real.stdout)
    assert quick.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_the_libraries_are_there_and_the_package_is_not():
    code = "import sys; print([name in sys.modules for name in ('torch', 'detectron2', 'cellseg_d2', 'tests')])"
    said = subprocess.run([*quick_python(), "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[True, True, False, False]\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", ["", "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); "])
def test_signals_arrive(sent, code):
    ends = []
    code = f"import signal, sys, time; {code}print('begun', flush=True); time.sleep(60)"
    for python in ((sys.executable,), quick_python()):
        command = ["env", "--default-signal", *python, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "begun\n"
            process.send_signal(sent)
            ends.append((process.communicate()[1].splitlines()[-1:], process.returncode))
    assert ends[0] == ends[1]


def test_a_command_that_is_killed_is_ended(tmp_path):
    code = f"import time; open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(2); open({str(tmp_path / 'end')!r}, 'w')"
    process = subprocess.Popen([*quick_python(), "-c", code], stdout=subprocess.PIPE)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == b"", "nobody has the pipe any more"
    assert not (tmp_path / "end").exists()


def test_a_copy_of_this_process_ends_without_ending_it():
    python = quick_python()
    copy = multiprocessing.get_context("fork").Process(target=int)
    copy.start()
    copy.join()
    assert subprocess.run([*python, "-c", "print(3)"], capture_output=True, text=True).stdout == "3\n"
