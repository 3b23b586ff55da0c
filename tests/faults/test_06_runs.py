"""A flipped bit in a run's weights or trees is noticed; runs of earlier versions have no checksums and are read."""

import json
import re

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nfn_transformer import main, predict, xgb
from nfn_transformer.errors import RunError


def train(command, zoo, path, *flags) -> None:
    arguments = ["--dataset", "digits", "--data_path", zoo, "--device", "cpu", "--out_dir", path, *flags]
    assert command.main([str(argument) for argument in arguments]) == 0


def predicted(path, zoo, capsys) -> str:
    capsys.readouterr()
    assert predict.main(["--run", str(path), str(zoo / "digits"), "--device", "cpu"]) == 0
    return capsys.readouterr().out


def test_a_flipped_bit_of_a_networks_weights(small_zoo, tmp_path, capsys):
    train(main, small_zoo, tmp_path, "--epochs", 1, "--enc_mode", "no")
    expected, best = predicted(tmp_path, small_zoo, capsys), tmp_path / "best.safetensors"
    sound = best.read_bytes()
    for place in (-1, -2000, -5000):
        content = bytearray(sound)
        content[place] ^= 1
        best.write_bytes(content)
        with pytest.raises(RunError, match="damaged: its weights have another checksum"):
            predicted(tmp_path, small_zoo, capsys)
    best.write_bytes(sound)
    with safe_open(best, "pt") as stored:
        header = json.loads(stored.metadata()["predictor"])
    del header["checksum"]
    save_file(load_file(best), best, {"predictor": json.dumps(header)})
    assert predicted(tmp_path, small_zoo, capsys) == expected


def test_a_flipped_bit_of_trees(small_zoo, tmp_path, capsys):
    train(xgb, small_zoo, tmp_path, "--features", "statistics")
    expected, best = predicted(tmp_path, small_zoo, capsys), tmp_path / "best.xgboost.json"
    sound = best.read_text()
    digit = re.search(r"\.\d\d\d(\d)", sound).start(1)
    best.write_text(f"{sound[:digit]}{int(sound[digit]) ^ 1}{sound[digit + 1 :]}")
    with pytest.raises(RunError, match=r"best\.xgboost\.json: holds no trees: damaged: it has another checksum"):
        predicted(tmp_path, small_zoo, capsys)
    best.write_text(sound)
    assert predicted(tmp_path, small_zoo, capsys) == expected
    (tmp_path / "best.xgboost.json.sha256").unlink()
    assert predicted(tmp_path, small_zoo, capsys) == expected
