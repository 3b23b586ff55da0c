"""Random numbers that are computed from what they are for: the same on every device, in any order, in any company."""

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 by the golden ratio: its multiples are spread evenly over all 64-bit numbers."""


def splitmix64(keys: Tensor) -> Tensor:
    """Neighbouring 64-bit numbers, int64 of any shape, as unlike ones.

    The finalizer of SplitMix64 (Steele et al., OOPSLA 2014). Products overflow as they should.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ shifted(keys, shift)) * signed(factor)
    return keys ^ shifted(keys, 31)


def signed(number: int) -> int:
    """The signed 64-bit number with the last 64 bits of this one."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def shifted(numbers: Tensor, bits: int) -> Tensor:
    """Unsigned shift of int64 to the right."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
