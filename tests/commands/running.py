"""Running the commands as users do: in a process of its own, or within this one, which is seconds faster."""

import importlib
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from nfn_transformer.cli.command_line import EXIT_USER_ERROR, run_command

PACKAGE = Path(__file__).parents[2] / "nfn_transformer"

COSTS = ("seconds", "peak_mib")
"""Columns of metrics.csv that two runs with one seed may have differently."""

ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1"}


def command(name: str, *arguments) -> list[str]:
    """The words that start a command; any warning ends it."""
    return [sys.executable, "-W", "error", str(PACKAGE / name), *map(str, arguments)]


def run(name: str, *arguments, **environment) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    environment = {**ENVIRONMENT, **environment}
    return subprocess.run(command(name, *arguments), capture_output=True, text=True, env=environment, timeout=300)


def call(name: str, *arguments) -> subprocess.CompletedProcess:
    """Run a command to its end within this process; the result is that of `run`."""
    program = importlib.import_module(f"nfn_transformer.{name.removesuffix('.py')}")
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        run_command(program.main, list(map(str, arguments)))
    return subprocess.CompletedProcess([name], ended.value.code, out.getvalue(), errors.getvalue())


def run_program(program: str, *arguments) -> subprocess.CompletedProcess:
    """Run Python text that starts a command to its end."""
    words = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def fail(main, capsys, *arguments) -> str:
    """The stderr of a command that must end with exit status 2, without a traceback."""
    with pytest.raises(SystemExit) as ended:
        run_command(main, [str(argument) for argument in arguments])
    errors = capsys.readouterr().err
    assert ended.value.code == EXIT_USER_ERROR
    assert "Traceback" not in errors
    return errors
