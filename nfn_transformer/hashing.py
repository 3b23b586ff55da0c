"""Hashes: counter-based random numbers, the same on every device and in any order, and checksums of tensors."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: its multiples are spread evenly over all 64-bit numbers."""

_LOW_16, _LOW_17 = (1 << 16) - 1, (1 << 17) - 1


def tensors_checksum(header: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of a text and of named tensors on the CPU, whatever their order."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def splitmix64(keys: Tensor) -> Tensor:
    """Return the hash of 64-bit keys, int64 of any shape: neighbouring keys get unlike numbers.

    The finalizer of SplitMix64 (Steele et al., OOPSLA 2014). Products overflow on purpose.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ shifted(keys, shift)) * signed(factor)
    return keys ^ shifted(keys, 31)


def derive_keys(keys: Tensor, number: int | Tensor) -> Tensor:
    """Return the keys, int64, of the `number`-th stream of each key; the shapes are broadcast."""
    step = number * signed(GOLDEN) if isinstance(number, Tensor) else signed(number * GOLDEN)
    return splitmix64(keys + step)


def random_bits(keys: Tensor, count: int) -> Tensor:
    """Return random 32-bit numbers [n, count] as int32, from keys [n], int64.

    The integer hash "lowbias32" (C. Wellons, Hash Prospector, https://github.com/skeeto/hash-prospector) of the
    numbers 0, 1, ..., with half of the key before and half within. Products overflow as they should; shifts of negative
    numbers are made unsigned by masks.
    """
    low, high = keys.contiguous().view(torch.int32).unflatten(0, (-1, 2)).unbind(1)
    bits = torch.arange(count, dtype=torch.int32, device=keys.device) ^ low[:, None]
    bits ^= (bits >> 16).bitwise_and_(_LOW_16)
    bits.mul_(0x21F0AAAD).bitwise_xor_(high[:, None])
    bits ^= (bits >> 15).bitwise_and_(_LOW_17)
    bits.mul_(0x735A2D97)
    return bits.bitwise_xor_((bits >> 15).bitwise_and_(_LOW_17))


def signed(number: int) -> int:
    """Return the signed 64-bit number with the last 64 bits of a number."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def shifted(numbers: Tensor, bits: int) -> Tensor:
    """Return int64 numbers shifted to the right as unsigned ones."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
