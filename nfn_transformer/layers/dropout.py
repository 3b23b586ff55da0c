"""Dropout whose choices are hashes of what they are for: a network of the zoo, an epoch, a layer, a place.

So a run that is resumed, shared among processes, computed in pieces or trained at once with others drops what it would
drop alone, and no random generator has to be kept. A network is known by its place in the zoo.
"""

import torch
from torch import Tensor, nn

from nfn_transformer.hashing import GOLDEN, signed, splitmix64

_BITS, _LEAST = 31, -(1 << 63)


class Dropout(nn.Module):
    """Numbers [b, ...] with a share set to zero and the others enlarged, in training only (Srivastava et al. 2014).

    Args:
        probability: of being dropped, in [0, 1).

    Attribute: number, of this layer among those of a model, which `number_dropouts` gives.
    """

    def __init__(self, probability: float):
        super().__init__()
        self.probability, self.number = probability, 0
        # A tensor: PyTorch's compiler would multiply a loop's counter by a plain number, and that must not overflow.
        self.register_buffer("golden", torch.tensor(signed(GOLDEN)), persistent=False)

    def forward(self, numbers: Tensor, keys: Tensor | None) -> Tensor:
        """Drop by random keys [b], int64, of the networks in this epoch; nothing where they are None."""
        if keys is None or not self.training or not self.probability:
            return numbers
        count = numbers.shape[1:].numel()  # there may be no network: of a batch's last part one process has none
        places = torch.arange(1, count + 1, device=numbers.device) * self.golden
        bits = splitmix64(splitmix64(keys + signed(self.number * GOLDEN))[:, None] + places)
        # The highest bits as an unsigned number, compared as signed ones.
        kept = (bits ^ _LEAST) >= (round(self.probability * 2**_BITS) << (64 - _BITS)) + _LEAST
        return numbers * (kept.to(numbers.dtype) / (1 - self.probability)).view_as(numbers)

    def extra_repr(self) -> str:
        return f"{self.probability}"


class Chain(nn.Sequential):
    """Modules one after another, of which those that drop are handed the keys."""

    def forward(self, numbers: Tensor, keys: Tensor | None = None) -> Tensor:
        for module in self:
            numbers = module(numbers, keys) if isinstance(module, Dropout) else module(numbers)
        return numbers


def dropouts(probability: float) -> list[Dropout]:
    """A layer to drop by, none where the probability is 0: what has no dropout has no place for it."""
    return [Dropout(probability)] if probability else []


def number_dropouts(model: nn.Module) -> None:
    """Let all layers that drop choose differently."""
    for number, module in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        module.number = number
