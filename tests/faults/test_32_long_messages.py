"""Fault 32: a thousand faulty checkpoints print a thousand lines."""

import csv
import re

import pytest
import torch
from small_zoo import SPEC, SmallZoo, state_dict

from nfn_transformer.errors import ZooError
from nfn_transformer.printable import MOST_CHARACTERS, MOST_LINES
from nfn_transformer.zoo.loose_checkpoints import read_loose_checkpoints
from nfn_transformer.zoo.reading import read_zoo

LONG = "k" * 5000


@pytest.mark.parametrize("kind", ["empty", "keys", "mixed"])
def test_32_ten_lines_of_a_kind_and_the_rest_in_a_file(tmp_path, kind):
    zoo = SmallZoo(tmp_path / "zoo")
    for run in range(1000 if kind == "empty" else 120):
        odd = {**state_dict(0), **{f"{LONG}{number}": torch.zeros(1) for number in range(50)}}
        empty = kind == "empty" or (kind == "mixed" and run % 2)
        zoo.add(f"run{run:04d}", b"" if empty else odd, label="" if run % 3 == 0 and kind == "mixed" else "0.5")
    zoo.write_table()
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist", progress=False)
    message = str(error.value)
    assert message.count("\n") < MOST_LINES
    assert len(message) <= MOST_CHARACTERS
    if kind == "empty":
        assert message.count("the file is empty") == 10
        path = re.search("and 990 more; all of them: (.*)", message)[1]
        with open(path, newline="") as file:
            assert len(list(csv.DictReader(file))) == 1000
    with pytest.raises(ZooError) as error:
        read_loose_checkpoints([zoo.path], SPEC) if kind != "keys" else read_zoo(zoo.path, LONG)
    assert str(error.value).count("\n") < MOST_LINES
    assert len(str(error.value)) <= MOST_CHARACTERS
