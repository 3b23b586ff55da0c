"""Base of the layers between weight spaces: sizes and their check, initialisation by fans, the ReLU."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from nfn_transformer.errors import SpecError, type_of
from nfn_transformer.layers.init_types import INIT_TYPES
from nfn_transformer.weights.containers import BlockWeights, FeedForwardWeights
from nfn_transformer.weights.spec import BlockSpec, FeedForwardSpec

Spec = TypeVar("Spec", bound=BlockSpec | FeedForwardSpec)
_Weights = TypeVar("_Weights", BlockWeights, FeedForwardWeights)


@dataclass(frozen=True)
class Fan:
    """The two fans of one term Phi from d to e channels."""

    fan_in: int
    """d times the input entries that the term sums over, heads included."""
    fan_out: int
    """e times the entries of Phi's output index."""
    squared: bool = False
    """Square the scale, as the published code does in most polynomial terms: products of weights stay small."""


def initialize_term(term: Tensor, fan: Fan, init_type: str, generator: torch.Generator | None = None) -> None:
    """Fill one term in place.

    Args:
        term: a parameter, or the part of one that holds the term.
        fan: the term's fans.
        init_type: one of these, of which `uniform` is never squared:

            xavier_normal      normal, standard deviation (2 / (fan_in + fan_out))^(1/2)
            xavier_uniform     uniform, bound (6 / (fan_in + fan_out))^(1/2)
            kaiming_normal     normal, standard deviation (2 / fan_in)^(1/2)
            pytorch_default    uniform, bound fan_in^(-1/2)
            uniform            uniform, bound 1
            reference          as xavier_normal; the fans are those of a group of terms (`reference_scales`)

        generator: source of the random numbers; PyTorch's own if None.

    Raises:
        ValueError: `init_type` is none of INIT_TYPES.
    """
    match init_type:
        case "xavier_normal" | "reference":
            scale = (2 / (fan.fan_in + fan.fan_out)) ** 0.5
        case "xavier_uniform":
            scale = (6 / (fan.fan_in + fan.fan_out)) ** 0.5
        case "kaiming_normal":
            scale = (2 / fan.fan_in) ** 0.5
        case "pytorch_default":
            scale = fan.fan_in**-0.5
        case "uniform":
            scale = 1.0
        case _:
            raise ValueError(f"init_type '{init_type}', expected one of {', '.join(INIT_TYPES)}")
    if fan.squared and init_type != "uniform":
        scale = scale**2
    with torch.no_grad():
        if init_type in ("xavier_normal", "kaiming_normal", "reference"):
            term.normal_(0, scale, generator=generator)
        else:
            term.uniform_(-scale, scale, generator=generator)


class WeightSpaceModule(nn.Module, Generic[Spec]):
    """Module that reads the weights of networks of one spec.

    Args:
        spec: sizes of a block or of a feed-forward network.
        in_channels: number d of channels of the weights.
        out_channels: number e of channels, or of numbers per network, of the output.

    Raises:
        SpecError: a feed-forward spec has no hidden layer.
    """

    symmetry: ClassVar[str]
    """The group that the module commutes with or is invariant to."""

    def __init__(self, spec: Spec, in_channels: int, out_channels: int):
        super().__init__()
        if isinstance(spec, FeedForwardSpec) and spec.layers < 2:
            raise SpecError(f"feed-forward sizes {spec.sizes} have no hidden layer, expected at least one")
        self.spec, self.in_channels, self.out_channels = spec, in_channels, out_channels

    def check(self, weights: object) -> None:
        """Check the weights that the module is given.

        Raises:
            TypeError: the argument is no weights of the part that the module reads, as a plain tensor.
            SpecError: the weights have other sizes or channels than the module.
        """
        kind = BlockWeights if isinstance(self.spec, BlockSpec) else FeedForwardWeights
        if not isinstance(weights, kind):
            raise TypeError(f"{type(self).__name__}: expected {kind.__name__}, got {type_of(weights)}")
        weights.check(self.spec)
        if weights.channels != self.in_channels:
            raise SpecError(f"weights have {weights.channels} channels, expected {self.in_channels}")

    def extra_repr(self) -> str:
        """Return sizes, channels and symmetry, as `print(module)` shows them."""
        return f"{self.spec}, {self.in_channels} -> {self.out_channels}, symmetry: {self.symmetry}"


class WeightSpaceLayer(WeightSpaceModule[Spec]):
    """Layer with learned terms, each initialised by its own fans.

    Args:
        spec, in_channels, out_channels: see `WeightSpaceModule`.
        init_type: one of INIT_TYPES.
        generator: source of the initial parameters; PyTorch's own if None.

    Raises:
        SpecError: a feed-forward spec has no hidden layer.
    """

    def __init__(
        self,
        spec: Spec,
        in_channels: int,
        out_channels: int,
        init_type: str = "xavier_normal",
        generator: torch.Generator | None = None,
    ):
        super().__init__(spec, in_channels, out_channels)
        self.add_terms()
        self.reset_parameters(init_type, generator)

    def add_terms(self) -> None:
        """Register the parameters; the order is that of state dicts and optimizers."""
        raise NotImplementedError

    def fans(self) -> Iterable[tuple[Tensor, Fan]]:
        """Return each term with its fans, in the order in which terms are drawn."""
        raise NotImplementedError

    def reference_fans(self) -> Iterable[tuple[Tensor, Fan]]:
        """Return each term with the fans of its group in the reference implementation.

        Raises:
            ValueError: the reference implementation has no such layer.
        """
        raise ValueError(f"init_type 'reference': {type(self).__name__} is not part of the reference implementation")

    def reset_parameters(self, init_type: str, generator: torch.Generator | None = None) -> None:
        """Draw every term anew."""
        for term, fan in self.reference_fans() if init_type == "reference" else self.fans():
            initialize_term(term, fan, init_type, generator)


def relu(weights: _Weights) -> _Weights:
    """Apply a ReLU entry by entry where that commutes with the group of the weights.

    Feed-forward weights: to everything. Block weights: to W^A, b^A, W^B and b^B, as on W^Q, W^K, W^V and W^O a ReLU
    would break the GL parts.

    Raises:
        TypeError: the weights are of another kind.
    """
    if isinstance(weights, FeedForwardWeights):
        return weights.map(torch.relu)
    if isinstance(weights, BlockWeights):
        W_A, b_A, W_B, b_B = map(torch.relu, (weights.W_A, weights.b_A, weights.W_B, weights.b_B))
        return replace(weights, W_A=W_A, b_A=b_A, W_B=W_B, b_B=b_B)
    raise TypeError(f"relu: expected BlockWeights or FeedForwardWeights, got {type_of(weights)}")
