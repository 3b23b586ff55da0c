"""Counter-based random numbers: the same on every device and in any order."""

from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: its multiples are spread evenly over all 64-bit numbers."""


def splitmix64(keys: Tensor) -> Tensor:
    """Return pseudo-random 64-bit numbers for keys, int64 of any shape.

    The finalizer of SplitMix64 (Steele et al., OOPSLA 2014). Products overflow on purpose.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ shifted(keys, shift)) * signed(factor)
    return keys ^ shifted(keys, 31)


def signed(number: int) -> int:
    """Return the signed 64-bit number with the last 64 bits of a number."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def shifted(numbers: Tensor, bits: int) -> Tensor:
    """Return int64 shifted to the right as unsigned numbers."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
