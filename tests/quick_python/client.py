"""Has the server run a program with this process's arguments, folder, environment and streams; ends as it ends."""

import json
import os
import resource
import signal
import socket
import sys

SIGNALS = signal.SIGINT, signal.SIGTERM


def open_streams() -> list[int]:
    """Those of the standard streams that are not closed."""
    found = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def main() -> None:
    streams = open_streams()
    while (server := socket.socket(socket.AF_UNIX)).fileno() < 3:
        server.detach()  # its number would be that of a stream that is closed
    server.connect(sys.argv[1])
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    place = {"folder": os.getcwd(), "environment": dict(os.environ)}
    request = {"argv": sys.argv[2:], **place, "streams": streams, "ignored": ignored}
    content = json.dumps(request).encode()
    server.sendall(len(content).to_bytes(4, "big"))
    socket.send_fds(server, [b"\0"], streams)
    server.sendall(content)
    for number in SIGNALS:  # also those ignored: the program may have decided otherwise by then
        signal.signal(number, lambda number, _: server.sendall(bytes([number])))
    code = int(server.recv(16) or b"1")
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
