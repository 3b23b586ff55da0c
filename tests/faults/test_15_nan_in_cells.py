"""Fault 15: a cell that says NaN is empty."""

import pytest

from nfn_transformer.zoo.metadata import ABSENT, HYPERPARAMETERS
from nfn_transformer.zoo.reading import read_zoo


@pytest.mark.parametrize("text", ["NaN", "nan", "None", "n/a", ""])
def test_15_heads_that_are_not_told_are_the_default(zoo, text):
    for row in zoo.rows:
        row.update(n_attention_heads=text, optimizer=text, lr=text)
    zoo.write_table()
    read = read_zoo(zoo.path, "mnist", progress=False)
    assert (len(read), read.spec.blocks[0].heads) == (40, 2)
    for name in ("lr", "optimizer is adam", "n_attention_heads"):
        assert set(read.hyperparameters[:, HYPERPARAMETERS.index(name)].tolist()) == {ABSENT}
