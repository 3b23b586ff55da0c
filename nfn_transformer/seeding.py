"""Independent streams of random numbers, each named by a seed and a purpose; no global random state."""

import hashlib

import torch


def stream_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on every part of `purpose`, and on nothing else."""
    name = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, as in `stream(seed, "batches", epoch)`."""
    return torch.Generator().manual_seed(stream_seed(seed, *purpose))
