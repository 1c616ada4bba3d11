"""Imports the libraries once, and runs each program that a client asks for in a copy of this process.

For each there are two processes: the program, and one that waits for its end to tell the client, and ends it where the
client is killed.
"""

import atexit
import codecs
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import types
import warnings
from typing import Any

# What the commands import, but for the package itself.
LIBRARIES = (
    *("cv2", "jinja2", "matplotlib.pyplot", "numpy", "pandas", "PIL.Image", "PIL.ImageDraw", "pycocotools.mask"),
    *("safetensors.torch", "scipy.ndimage", "scipy.optimize", "scipy.stats", "skimage.measure", "skimage.segmentation"),
    *("tifffile", "timm", "tqdm", "yaml"),
    *("torch", "torchvision", "torch.utils.tensorboard", "faster_coco_eval"),
    *("detectron2.checkpoint", "detectron2.engine", "detectron2.evaluation", "detectron2.modeling"),
)


def main() -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen(64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
    own = {name for name in sys.modules if name.split(".")[0] in ("cellseg_d2", "tests")}
    assert not own, f"a library imports {sorted(own)}"
    gc.collect()
    gc.freeze()  # a collection in a copy would copy all memory
    os.write(1, b"ready\n")
    signal.signal(signal.SIGCHLD, collect)
    while True:
        ready, _, _ = select.select([server, 0], [], [])
        if 0 in ready:  # the tests have ended
            return
        client, _ = server.accept()
        if os.fork() == 0:
            server.close()
            request = keep(client)
            os._exit(0 if request is None else run(**request))
        client.close()


def collect(*_: object) -> None:
    """Take note of the processes that have ended, so that their processor time counts as that of the tests."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(client: socket.socket) -> dict | None:
    """In the program, what to run; in the process that waits for it, None when it has ended."""
    size = int.from_bytes(receive(client, 4), "big")
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    request = json.loads(receive(client, size))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    program = os.fork()
    if program == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (client.detach(), reading, writing):
            os.close(number)
        return request | {"files": files}
    for number in (0, 1, 2, *files):  # a pipe's end is that of the program
        os.close(number)
    while True:
        ready, _, _ = select.select([client, reading], [], [])
        if client in ready:
            sent = client.recv(1)  # the number of a signal, or nothing: then the client was killed
            os.kill(program, sent[0] if sent else signal.SIGKILL)
            if not sent:
                return None
            continue
        os.read(reading, 64)
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            return None


def receive(client: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        content += client.recv(size - len(content)) or sys.exit("a client was killed")
    return content


def run(ignored: list[int], **place: Any) -> int:
    """Be ``python ARGV`` with these streams, and ignore these signals; returns the exit code.

    Python's own end would free every object, and copy all memory for it.
    """
    code, interrupted = 0, False
    try:
        # Those of this process, where it was started in the background, are none of the program's.
        for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
            signal.signal(number, signal.SIG_IGN if number in ignored else usual)
        start(**place)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        if code == 1 and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        code = 120
        print(f"Exception ignored in: {sys.stdout!r}\n{type(error).__name__}: {error}", file=sys.stderr)
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code & 0xFF


def start(argv: list[str], folder: str, environment: dict[str, str], streams: list[int], files: list[int]) -> None:
    """Take the place of the program, and call it."""
    for number in range(3):
        os.close(number)
    for number, file in zip(streams, files, strict=True):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    open_streams(environment)
    more = environment.get("PYTHONPATH", "")
    known = [os.path.abspath(path) for path in more.split(os.pathsep)] if more else []
    sys.path[:] = [*known, *sys.path[1:]]  # the first is the folder of this file
    if safe := argv[0] == "-P":
        argv = argv[1:]
    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        first = ""
    elif argv[0] == "-m":
        sys.argv = ["-m", *argv[2:]]
        first = os.getcwd()
    else:
        sys.argv = argv
        first = os.path.dirname(os.path.abspath(argv[0]))
    sys.path[:0] = [] if safe else [first]
    if argv[0] == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")  # not this file, which its workers would run
        exec(compile(argv[1], "<string>", "exec"), vars(main))
    elif argv[0] == "-m":
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(argv[0], run_name="__main__")


def open_streams(environment: dict[str, str]) -> None:
    """What Python makes of its standard streams when it starts."""
    encoding, _, errors = environment.get("PYTHONIOENCODING", "").partition(":")
    errors = errors or ("strict" if encoding else sys.stdout.errors)  # of this process: what the locale asks for
    encoding = codecs.lookup(encoding or sys.stdout.encoding).name
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            raw = open(number, "wb" if number else "rb", buffering=0, closefd=False)  # noqa: SIM115
        except OSError:
            stream = None
        else:
            if number == 0:
                buffer: io.RawIOBase | io.BufferedIOBase = io.BufferedReader(raw)
            else:
                buffer = raw if unbuffered else io.BufferedWriter(raw)
            stream = io.TextIOWrapper(
                buffer,
                encoding=encoding,
                errors="backslashreplace" if number == 2 else errors,
                line_buffering=not unbuffered and (number == 2 or raw.isatty()),
                write_through=unbuffered,
            )
            stream.mode = "w" if number else "r"
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    main()
