"""Kind 22: a disk that is full is one line with the file's name; nothing that was finished is lost."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nfn_transformer import main
from nfn_transformer.atomic_files import replacing, write_text
from nfn_transformer.cli.command_line import run_command
from nfn_transformer.training.run_directory import RunDirectory

FLAGS = ["--enc_mode", "statnn", "--cls_mode", "statnn", "--dataset", "digits", "--device", "cpu", "--wandb", "False"]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let files grow no further, which a process sees as it sees a full disk: a write fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"a": torch.zeros(50_000)}, path),
        lambda path: save_file({"a": torch.zeros(50_000)}, path),
        lambda path: path.write_bytes(bytes(200_000)),
    ],
    ids=["torch", "safetensors", "bytes"],
)
def test_whatever_writes_the_error_is_the_systems_and_names_the_file(tmp_path, write):
    path = tmp_path / "state.pt"
    write_text(path, "earlier")
    with no_file_larger_than(100_000), pytest.raises(OSError, match="File too large") as error, replacing(path) as part:
        write(part)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["state.pt"]


def test_another_error_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="wrong"), replacing(tmp_path / "file"):
        raise RuntimeError("wrong")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        (tmp_path / "absent").read_bytes()
    assert os.listdir(tmp_path) == []


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def test_a_training_says_how_to_go_on_and_goes_on_to_the_same_numbers(small_zoo, tmp_path, capsys, monkeypatch):
    whole, run = tmp_path / "whole", tmp_path / "run"
    words = [*FLAGS, "--data_path", str(small_zoo), "--epochs", "3"]
    assert main.main([*words, "--out_dir", str(whole)]) == 0
    write_state, epochs = RunDirectory.write_state, []

    def write_until_full(directory: RunDirectory, state: dict) -> None:
        epochs.append(len(state["history"]))
        with no_file_larger_than(2**40 if epochs[-1] < 2 else 10_000):
            write_state(directory, state)

    monkeypatch.setattr(RunDirectory, "write_state", write_until_full)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_command(main.main, [*words, "--out_dir", str(run)])
    assert (ended.value.code, epochs) == (1, [1, 2])
    lines = capsys.readouterr().err.strip().splitlines()
    reason = f"error: [Errno {errno.EFBIG}] File too large: '{run / 'state.pt'}'"
    assert lines == [f"{reason}; go on by: python nfn_transformer/main.py --resume {run}"]
    assert not [name for name in os.listdir(run) if name.endswith(".part")]
    monkeypatch.undo()
    assert main.main(["--resume", str(run)]) == 0
    assert results(run) == results(whole)
