"""Text of files reaches a terminal escaped and short: keys, names, titles, paths."""

import pytest
import torch
from small_zoo import state_dict

from nfn_transformer.cli.command_line import run_command
from nfn_transformer.errors import UserError, ZooError
from nfn_transformer.printable import printable, printable_message, quoted, shown
from nfn_transformer.zoo.reading import read_zoo

ESCAPE = "\x1b]0;owned\x07\x9b2J\u202e\r"


def test_control_characters_are_escaped_and_texts_are_short():
    assert printable(ESCAPE) == r"\x1b]0;owned\x07\x9b2J\u202e\r"
    assert printable("Grüße ☃") == "Grüße ☃"
    assert printable("x" * 2000) == f"{'x' * 500}... (2,000 characters)"
    assert len(quoted("x" * 20_000_000)) < 300
    assert shown([[1]] * 1000) == "a list of 1,000 entries"
    assert len(printable_message("\n".join([ESCAPE * 1000] * 1000))) <= 4000


@pytest.mark.parametrize("key", [f"odd{ESCAPE}key", "k" * 100_000])
def test_a_key_of_a_checkpoint_neither_steers_nor_fills_a_terminal(zoo, key):
    for index in range(30):
        zoo.add(f"odd{index}", {**state_dict(index), key: torch.zeros(1)})
    zoo.write_table()
    with pytest.raises(ZooError) as error:
        read_zoo(zoo.path, "mnist", progress=False)
    assert str(error.value).replace("\n", "").isprintable()
    assert len(str(error.value)) < 2000


def test_a_message_of_any_command_is_escaped_and_bounded(capsys):
    def fail(arguments):
        raise UserError("\n".join([f"{ESCAPE}: no such file", *("a line" for _ in range(100_000)), "y" * 10**6]))

    with pytest.raises(SystemExit) as end:
        run_command(fail, [])
    errors = capsys.readouterr().err
    assert end.value.code == 2
    assert errors.startswith(r"error: \x1b]0;owned\x07\x9b2J\u202e\r: no such file")
    assert errors.replace("\n", "").isprintable()
    assert errors.count("\n") <= 30
    assert len(errors) <= 4000
