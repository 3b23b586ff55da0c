"""Independent streams of random numbers, each named by a seed and a purpose; no global random state."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on every part of `purpose`, and on nothing else."""
    name = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def make_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose, as in `make_generator(seed, "batches", epoch)`.

    ```python
    numbers = torch.rand(3, generator=nfn.make_generator(0, "my experiment"))
    ```
    """
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
