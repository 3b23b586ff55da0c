"""Kind 20: letters that the encoding of the output lacks are written by backslashes, and end no training."""

import io
import sys

import pytest

from nfn_transformer import main
from nfn_transformer.cli.command_line import run_command


@pytest.mark.parametrize(("encoding", "written"), [("ascii", r"gr\xf6\xdfe\u03c4"), ("latin-1", "größe\\u03c4")])
def test_a_training_ends_in_any_encoding(small_zoo, tmp_path, monkeypatch, encoding, written):
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    flags = ["--enc_mode", "statnn", "--cls_mode", "statnn", "--epochs", "1", "--device", "cpu", "--wandb", "False"]
    place = ["--data_path", str(small_zoo), "--dataset", "digits", "--out_dir", str(tmp_path / "größeτ")]
    with pytest.raises(SystemExit) as ended:
        run_command(main.main, [*flags, *place])
    out.flush()
    assert ended.value.code == 0
    assert (tmp_path / "größeτ/results.json").is_file()
    assert f"run directory: {tmp_path}/{written}" in out.buffer.getvalue().decode(encoding)


def test_an_error_is_told_in_any_encoding(monkeypatch):
    errors = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", errors)
    with pytest.raises(SystemExit) as ended:
        run_command(main.main, ["--resume", "größe\udcff"])
    errors.flush()
    assert ended.value.code == 2
    assert rb"error: gr\xf6\xdfe\udcff: not a run directory" in errors.buffer.getvalue()
