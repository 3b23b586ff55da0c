"""nfn-transformer COMMAND: the console command takes the flags of every command and imports only what it runs."""

import subprocess
import sys

import pytest

from nfn_transformer import __main__ as console
from nfn_transformer import __version__
from nfn_transformer.cli.command_line import CONSOLE_COMMANDS


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nfn-transformer"])


@pytest.mark.parametrize("command", CONSOLE_COMMANDS)
def test_help_names_the_command_as_it_was_started(command, capsys):
    with pytest.raises(SystemExit) as ended:
        console.main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: nfn-transformer {command} ")
    assert f"\n  nfn-transformer {command} " in text  # an example


def test_an_error_names_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        console.main(["train", "--epochs", "0"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: nfn-transformer train [flags]")


def test_without_a_command_all_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        console.main([])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"\n  {name} " in text for name in CONSOLE_COMMANDS)


def test_the_version_needs_neither_pytorch_nor_a_command():
    program = "import sys\nfrom nfn_transformer import __main__ as console\ntry: console.main(sys.argv[1:])\n"
    program += "finally: print([name for name in ('torch', 'nfn_transformer.main') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True)
    assert result.stdout == f"nfn-transformer {__version__}\n[]\n"
