"""Kind 21: closed standard streams (`2>&-`, a service's) change no result, and no file takes their numbers."""

import subprocess
import sys

import pytest

from nfn_transformer import main, xgb
from nfn_transformer.cli.command_line import run_command

PROGRAM = """
import os, sys
from nfn_transformer.cli.command_line import run_command

def command(arguments):
    print("to nowhere", file=sys.stderr)
    with open(arguments[0], "w") as file:
        file.write(f"{file.fileno() > 2} {sys.stdin} {sys.stderr.isatty()} {os.get_inheritable(2)}")
    return 0

run_command(command)
"""


def test_files_do_not_take_the_numbers_of_closed_streams(tmp_path):
    script = f'exec {sys.executable} -c "$0" "$1" <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", script, PROGRAM, str(tmp_path / "out")]).returncode == 0
    assert (tmp_path / "out").read_text() == "True None False True"


@pytest.mark.parametrize(
    ("closed", "command", "flags"),
    [
        (("stderr",), xgb.main, []),
        (("stdout", "stderr"), main.main, ["--enc_mode", "statnn", "--cls_mode", "statnn", "--epochs", "1"]),
    ],
)
def test_a_training_needs_no_streams(small_zoo, tmp_path, monkeypatch, command, flags, closed):
    for name in closed:
        monkeypatch.setattr(sys, name, None)
    place = ["--data_path", str(small_zoo), "--dataset", "digits", "--out_dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        run_command(command, [*flags, *place, "--device", "cpu", "--wandb", "False"])
    for name in closed:
        vars(sys)[name].close()
    assert ended.value.code == 0
    assert (tmp_path / "run/results.json").is_file()
