"""Fault 3: a checkpoint of another architecture is predicted as if it were one of these, without a word."""

import torch
from small_zoo import QUERIES_BIAS, SPEC, saved, state_dict

from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints


def test_03_tensors_that_no_predictor_reads_are_named(tmp_path, capsys):
    path = tmp_path / "biased.pt"
    path.write_bytes(saved({**state_dict(0), QUERIES_BIAS: torch.ones(4), "epoch": 75}))
    read_loose_checkpoints([path], SPEC)
    warning = capsys.readouterr().err
    assert "1 of 1 checkpoints hold tensors that no predictor reads, so that the predictions are of other" in warning
    assert f"'{QUERIES_BIAS}'" in warning
    assert "'epoch'" not in warning
