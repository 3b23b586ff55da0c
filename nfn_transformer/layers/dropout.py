"""Dropout by counter-based random numbers: hashes of network, epoch, layer and position.

A run drops the same numbers if it is resumed, shared among processes, computed in pieces or trained beside others. No
random generator has to be kept. A network is known by its index in the zoo.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nfn_transformer.hashing import GOLDEN, derive_keys, signed, splitmix64

_BITS, _LEAST = 31, -(1 << 63)


class Dropout(nn.Module):
    """Dropout of numbers [b, ...] in training (Srivastava et al. 2014): a share is zero, the others are enlarged.

    Args:
        probability: of being dropped, in [0, 1).

    Attributes:
        number: of this layer among the dropouts of a model, set by `number_dropouts`.
    """

    golden: Tensor

    def __init__(self, probability: float):
        super().__init__()
        self.probability, self.number = probability, 0
        # A tensor: PyTorch's compiler would multiply a loop's counter by a plain number, and that must not overflow.
        self.register_buffer("golden", torch.tensor(signed(GOLDEN)), persistent=False)

    def forward(self, numbers: Float[Tensor, " b *n"], keys: Int64[Tensor, " b"] | None) -> Float[Tensor, " b *n"]:
        """Drop by random keys of the networks in this epoch; without keys drop nothing."""
        if keys is None or not self.training or not self.probability:
            return numbers
        count = numbers.shape[1:].numel()  # b may be 0: the last part of a batch is empty in some process
        positions = torch.arange(1, count + 1, device=numbers.device) * self.golden
        bits = splitmix64(derive_keys(keys, self.number)[:, None] + positions)
        # The highest bits as an unsigned number, compared as signed ones.
        kept = (bits ^ _LEAST) >= (round(self.probability * 2**_BITS) << (64 - _BITS)) + _LEAST
        return numbers * (kept.to(numbers.dtype) / (1 - self.probability)).view_as(numbers)

    def extra_repr(self) -> str:
        """Return the probability, as `print(module)` shows it."""
        return f"{self.probability}"


class Chain(nn.Sequential):
    """Sequence of modules that hands the keys to its dropouts."""

    def forward(
        self, numbers: Float[Tensor, " b *n"], keys: Int64[Tensor, " b"] | None = None
    ) -> Float[Tensor, " b *m"]:
        """Map numbers through all modules."""
        for module in self:
            numbers = module(numbers, keys) if isinstance(module, Dropout) else module(numbers)
        return numbers


def dropouts(probability: float) -> list[Dropout]:
    """Return one dropout, or none if the probability is 0: keys of state dicts count the modules that exist."""
    return [Dropout(probability)] if probability else []


def number_dropouts(model: nn.Module) -> None:
    """Set the numbers of the dropouts of a model, so that each drops other numbers."""
    for number, module in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        module.number = number
