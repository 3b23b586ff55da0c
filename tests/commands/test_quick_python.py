"""The stand-in for Python starts, ends and is killed as Python is, but has imported PyTorch before."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("quick_python")

CLIENT, PYTHON = Path(__file__).parents[1] / "quick_python/client.py", sys.executable

ENDS = {
    "by itself": ("print(1)", 0, "1\n", ""),
    "with a status": ("import sys; sys.exit(3)", 3, "", ""),
    "with words": ("import sys; sys.exit('no')", 1, "", "no\n"),
    "in an error": ("1 / 0", 1, "", "ZeroDivisionError: division by zero\n"),
    "in a warning": ("import warnings; warnings.warn('odd')", 1, "", "UserWarning: odd\n"),
    "by a signal": ("import os; os.kill(os.getpid(), 9)", -9, "", ""),
    "with words of its own": ("import sys; print(sys.argv[1:], sys.executable)", 0, "['a', 'b'] {}\n", ""),
    "with its libraries": ("import sys; print('torch._dynamo' in sys.modules)", 0, "True\n", ""),
    "without the project": ("import sys; print('nfn_transformer' in sys.modules)", 0, "False\n", ""),
    "after what is left to do": ("import atexit; atexit.register(print, 'last')", 0, "last\n", ""),
}


@pytest.mark.parametrize(("text", "status", "out", "errors"), ENDS.values(), ids=ENDS)
def test_programs_end_as_python_does(text, status, out, errors):
    words = [sys.executable, "-W", "error", "-c", text, "a", "b"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (status, out.format(sys.executable))
    assert ended.stderr.endswith(errors)


def test_it_has_the_folder_the_environment_and_the_open_files_of_who_starts_it(tmp_path):
    reader, writer = os.pipe()
    words = "' '.join([os.getcwd(), os.environ['ONLY'], str(len(os.environ))])"
    text = f"import os; os.write({writer}, {words}.encode())"
    environment = {"ONLY": "this", "LC_CTYPE": "C.UTF-8"}  # Python itself sets the latter where no other does
    subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, pass_fds=[writer], check=True)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == f"{tmp_path} this 2"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 7), (signal.SIGKILL, -signal.SIGKILL)])
def test_signals_reach_it(number, status):
    text = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True)"
    words = [sys.executable, "-c", f"{text}; time.sleep(60)"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == ""  # nobody is left who could write
    assert process.returncode == status


def test_a_program_that_nobody_runs_does_not_seem_to_succeed(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "server"))
        server.listen()
        (tmp_path / "client.py").write_text(CLIENT.read_text())
        with subprocess.Popen([PYTHON, "-IS", str(tmp_path / "client.py")], stderr=subprocess.PIPE) as process:
            accepted, _ = server.accept()
            accepted.recv(8)
            accepted.shutdown(socket.SHUT_WR)
            assert process.wait(60) == 1
            assert process.stderr.read() == b"the stand-in for Python has lost its server\n"
            accepted.close()
