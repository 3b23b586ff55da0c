"""A Python that has imported the large libraries once, and forks for each program that client.py is asked to run.

python server.py SOCKET: prints a line once it listens. It imports nothing of this project, and runs nothing itself.
"""

import array
import atexit
import contextlib
import fcntl
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import warnings
from pathlib import Path

LIBRARIES = (
    "torch._dynamo",
    "safetensors.torch",
    "scipy.stats",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)
"""Modules that nearly every command imports; the first comes with every optimizer."""

HIGHEST = 512
"""File descriptors of a request are moved above this number before each takes its own."""


def serve(path: str) -> dict | None:
    """Fork a watcher for each client; return, in the process that is to run it, a client's request."""
    for library in LIBRARIES:
        importlib.import_module(library)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("listening", flush=True)
    watchers = set()
    while True:
        client, _ = listener.accept()
        watchers = {watcher for watcher in watchers if os.waitpid(watcher, os.WNOHANG)[0] == 0}
        watcher = os.fork()
        if watcher == 0:
            listener.close()
            return watch(client)
        watchers.add(watcher)
        client.close()


def receive(client: socket.socket) -> tuple[dict, list[int]]:
    """Return a client's request and its open file descriptors."""
    size = array.array("q", [0])
    header, ancillary, _, _ = client.recvmsg(size.itemsize, socket.CMSG_SPACE(253 * 4))
    size.frombytes(header)
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    text = b""
    while len(text) < size[-1]:
        piece = client.recv(1 << 16)
        if not piece:
            os._exit(0)  # the client was killed
        text += piece
    return json.loads(text), list(descriptors)


def watch(client: socket.socket) -> dict:
    """Fork the process that runs a request and tell the client how it ends; a client that is killed takes it along."""
    request, descriptors = receive(client)
    child = os.fork()
    if child == 0:
        client.close()
        take_over(request, descriptors)
        return request
    for descriptor in (0, 1, *descriptors):
        os.close(descriptor)
    client.send(array.array("q", [child]).tobytes())
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([client, ended], [], [])
    if client in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        client.send(array.array("q", [os.waitstatus_to_exitcode(status)]).tobytes())
    os._exit(0)


def take_over(request: dict, descriptors: list[int]) -> None:
    """Give this process the file descriptors, the folder, the environment and the signals of the client."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGHEST) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, wanted in zip(high, request["descriptors"], strict=True):
        os.dup2(descriptor, wanted)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.SIG_IGN if request["ignores_interrupts"] else signal.default_int_handler)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = os.fdopen(0)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = os.fdopen(descriptor, "w")
        stream.reconfigure(write_through=unbuffered, line_buffering=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    random.seed()
    sys.executable = request["executable"]
    threads = os.environ.get("OMP_NUM_THREADS")
    torch = sys.modules["torch"]
    if threads and int(threads) != torch.get_num_threads():
        torch.set_num_threads(int(threads))


def run(words: list[str]) -> None:
    """Run a program as `python WORDS` does; of the options, -W, -c and -m do something."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[0:1] = folders
    while words:
        option, *words = words
        if option.startswith("-W"):
            warnings.simplefilter(option[2:] or words.pop(0))
        elif option == "-c":
            text, sys.argv = words[0], ["-c", *words[1:]]
            sys.path.insert(0, "")
            exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
            return
        elif option == "-m":
            sys.argv = words
            sys.path.insert(0, os.getcwd())
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
            return
        elif not option.startswith("-"):
            sys.argv = [option, *words]
            sys.path.insert(0, str(Path(option).resolve().parent))
            runpy.run_path(option, run_name="__main__")
            return


def end_as(words: list[str]) -> None:
    """Run a program and end as Python does, but leave all memory to the kernel: tearing it down takes seconds."""
    status = 0
    try:
        run(words)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    end_as(serve(sys.argv[1])["words"])
