"""Stands in for `python`: server.py forks a process for the words that follow, and this one lives and ends as it does.

Beside this file lies the server's socket, `server`.
"""

import array
import json
import os
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def receive(server: socket.socket) -> int:
    """Return the server's next number; without one exit, as a program that nobody ran must not seem to succeed."""
    number = server.recv(8, socket.MSG_WAITALL)
    if len(number) < 8:
        sys.exit("the stand-in for Python has lost its server")
    return int.from_bytes(number, sys.byteorder, signed=True)


def main() -> None:
    """Send what this process has; forward its signals; end with the status or by the signal that ended the other."""
    pending, child = [], None

    def forward(number, _):
        if child is None:
            pending.append(number)
        else:
            os.kill(child, number)

    ignores_interrupts = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    for number in SIGNALS:  # the program may heed what this process was started to ignore
        signal.signal(number, forward)
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.path.join(os.path.dirname(sys.argv[0]), "server"))
    descriptors = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.get_inheritable(descriptor):
                descriptors.append(descriptor)
        except OSError:  # of the list itself
            pass
    request = {
        "words": sys.argv[1:],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "descriptors": descriptors,
        "ignores_interrupts": ignores_interrupts,
        "executable": sys.argv[0],
    }
    text = json.dumps(request).encode()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    server.sendmsg([array.array("q", [len(text)]).tobytes()], [rights])
    server.sendall(text)
    child = receive(server)
    for number in pending:
        os.kill(child, number)
    status = receive(server)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


main()
