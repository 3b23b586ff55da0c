"""Random numbers as hashes."""

import torch

from nfn_transformer.hashing import GOLDEN, derive_keys, random_bits, shifted, signed, splitmix64


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


def test_random_bits_are_even_and_change_with_every_bit_of_their_key():
    key = torch.tensor([0x123456789ABCDEF])
    bits = random_bits(key, 1 << 16)[0]
    positions = torch.arange(32, dtype=torch.int32)
    shares = ((bits[:, None] >> positions) & 1).double().mean(0)
    assert (shares - 0.5).abs().max() < 0.01
    assert len(bits.unique()) == len(bits)
    for position in range(63):
        changed = bits ^ random_bits(key ^ (1 << position), 1 << 16)[0]
        flipped = ((changed[:, None] >> positions) & 1).double().mean(0)
        assert flipped.max() > 0.4, position


def test_derived_keys_are_hashes_of_key_and_number():
    keys, numbers = torch.tensor([3, 5, 7]), torch.tensor([1, 2, 3])
    assert torch.equal(derive_keys(keys, numbers)[1:2], derive_keys(keys[1:2], 2))
    assert derive_keys(torch.tensor(0), 1).item() == splitmix64(torch.tensor(signed(GOLDEN))).item()
    assert len(torch.cat([derive_keys(keys, number) for number in range(100)]).unique()) == 300
