"""Fault 23: a second command on a run that is still running."""

import subprocess
import sys

import pytest

from nfn_transformer.errors import RunError
from nfn_transformer.training.run_directory import RunDirectory

HOLD = """
import sys
from pathlib import Path
from nfn_transformer.training.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
run.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_23_a_run_is_written_by_one_process_at_a_time(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="another process"):
            RunDirectory(tmp_path).lock()
        other.kill()
    RunDirectory(tmp_path).lock()
