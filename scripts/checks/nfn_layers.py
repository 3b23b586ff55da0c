"""Count the maps that commute with permuting neurons in the NP and HNP layers of the library nfn, and in ours.

Takes the rank of what a layer's parameters do, one by one, to a basis of the weights.

    pip install nfn==0.1.2
    python scripts/checks/nfn_layers.py
"""

import itertools
import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nfn_transformer import FeedForwardSpec, FeedForwardWeights, HNPLinear, NPLinear

SIZES = ((2, 3, 2), (2, 2, 3), (2, 2, 2, 3), (2, 2, 2, 2, 3))


def main() -> int:
    try:
        from nfn import layers
        from nfn.common import WeightSpaceFeatures, network_spec_from_wsfeat
    except ImportError:
        print("pip install nfn==0.1.2", file=sys.stderr)
        return 1

    for sizes in SIZES:
        spec, basis = FeedForwardSpec(sizes), _basis(sizes)
        theirs_spec = network_spec_from_wsfeat(WeightSpaceFeatures(basis.weights, basis.biases))
        for name, ours, theirs in (("HNP", HNPLinear, layers.HNPLinear), ("NP", NPLinear, layers.NPLinear)):
            counts = []
            for layer, kind in (
                (ours(spec, 1, 1), FeedForwardWeights),
                (theirs(theirs_spec, 1, 1), WeightSpaceFeatures),
            ):
                counts.append(_span(layer.double(), lambda U, kind=kind: kind(U.weights, U.biases), basis))
            (our_rank, our_count), (rank, count) = counts
            print(f"{sizes} {name}: ours {our_rank} maps by {our_count} parameters, nfn {rank} by {count} parameters")
    return 0


def _basis(sizes: tuple[int, ...]) -> FeedForwardWeights:
    """Return one network for each weight, in which this weight is 1 and all others are 0."""
    shapes = [(n, m) for m, n in itertools.pairwise(sizes)] + [(n,) for n in sizes[1:]]
    counts = [math.prod(shape) for shape in shapes]
    parts = torch.eye(sum(counts), dtype=torch.float64).split(counts, dim=1)
    tensors = [part.unflatten(1, shape)[:, None] for part, shape in zip(parts, shapes, strict=True)]
    L = len(sizes) - 1
    return FeedForwardWeights(tuple(tensors[:L]), tuple(tensors[L:]))


@torch.no_grad()
def _span(layer: nn.Module, given: Callable, basis: FeedForwardWeights) -> tuple[int, int]:
    """Return the rank and the count of the linear maps that a layer's parameters stand for, without constants."""
    zero = basis.map(lambda tensor: torch.zeros_like(tensor[:1]))
    for parameter in layer.parameters():
        parameter.zero_()
    maps = []
    for parameter in layer.parameters():
        for index in range(parameter.numel()):
            parameter.view(-1)[index] = 1
            image = _vector(layer(given(basis))) - _vector(layer(given(zero)))
            parameter.view(-1)[index] = 0
            if image.abs().max() > 0:
                maps.append(image.flatten())
    return torch.linalg.matrix_rank(torch.stack(maps)).item(), len(maps)


def _vector(U) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in (*U.weights, *U.biases)], dim=1)


if __name__ == "__main__":
    sys.exit(main())
