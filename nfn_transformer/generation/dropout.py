"""Dropout for n networks at once, from counter-based random numbers.

Random numbers of a generator per network would be drawn on the CPU, network by network, and hold back a GPU.
Here each number is a hash of the run, the count of earlier calls, and the activation's index.
So it is the same on every device and with any other networks trained beside.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nfn_transformer.hashing import derive_keys, random_bits
from nfn_transformer.seeding import derive_seed


class PopulationDropout:
    """Dropout with a probability for each network: activations [n, ...] to the same shape."""

    def __init__(self, probabilities: Sequence[float], seed: int, runs: Sequence[int], device: torch.device):
        """Set up the networks' keys.

        Args:
            probabilities: in [0, 1), one per network.
            seed: of the zoo.
            runs: numbers of the runs.
            device: of the activations.
        """
        self._any = any(probabilities)
        self._calls = 0
        keys = [derive_seed(seed, "run", run, "dropout") for run in runs]
        self._keys = torch.tensor(keys, dtype=torch.int64, device=device)
        # In 65536ths, as each number is dropped or kept by 16 bits.
        self._dropped = (torch.tensor(probabilities, dtype=torch.float64, device=device) * 2**16).round()

    def select(self, rows: Tensor) -> None:
        """Go on with the networks of these rows alone."""
        self._keys, self._dropped = self._keys[rows], self._dropped[rows]

    def __call__(self, activations: Tensor) -> Tensor:
        """Drop activations and rescale the others."""
        if not self._any:
            return activations
        self._calls += 1
        size = activations[0].numel()
        # Both halves of a hash are equally good: two numbers from one. `models.branch.Dropout` hashes each number to 64
        # bits and changes nothing in place, as it runs under vmap and the compiler; both must keep their bits.
        bits = random_bits(derive_keys(self._keys, self._calls), -(-size // 2)).view(torch.int16)[:, :size]
        kept = bits >= (self._dropped - 2**15).to(torch.int16)[:, None]
        scale = (1 / (1 - self._dropped / 2**16)).to(activations.dtype)
        return activations * (kept * scale[:, None]).view_as(activations)

    @property
    def scale(self) -> Tensor:
        """Factors [n] by which `kept` activations grow, float32."""
        return (1 / (1 - (self._dropped / 2**8).round() / 2**8)).float()

    def kept(self, batch: int, size: int) -> Tensor:
        """Return 1 for activations [batch, n, size] that are kept, 0 for others, by 8 random bits each.

        On a CPU this takes a quarter of the time of a call.
        """
        self._calls += 1
        bits = random_bits(derive_keys(self._keys, self._calls), -(-batch * size // 4)).view(torch.int8)
        bits = bits[:, : batch * size].unflatten(1, (batch, size)).transpose(0, 1)  # [batch, n, size]
        dropped = ((self._dropped / 2**8).round() - 2**7).to(torch.int8)[:, None]
        return torch.ge(bits, dropped, out=torch.empty(bits.shape, device=bits.device))
