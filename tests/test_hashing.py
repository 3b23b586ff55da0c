"""Random numbers as hashes."""

import torch

from nfn_transformer.hashing import GOLDEN, shifted, signed, splitmix64


def test_it_is_splitmix64():
    """The first numbers of the generator with seed 1234567, as its authors' code gives them."""
    states = torch.tensor([signed(1234567 + place * GOLDEN) for place in range(1, 6)])
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [number % 2**64 for number in splitmix64(states).tolist()] == expected


def test_signed_and_shifted_are_arithmetic_of_64_bits():
    for number in (0, 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64 + 5):
        assert signed(number) % 2**64 == number % 2**64
        assert -(2**63) <= signed(number) < 2**63
        assert shifted(torch.tensor(signed(number)), 7).item() == number % 2**64 >> 7
