"""Sizes of networks: frozen specs, from which layers are built and by which they check their input."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "tanh", "sigmoid", "sine", "none")
"""Activations of feed-forward networks; `none` is the identity."""


@dataclass(frozen=True)
class BlockSpec:
    """Sizes of one encoder block (arXiv 2410.04209, section 3)."""

    heads: int
    """h."""
    width: int
    """D."""
    key: int
    """D_k."""
    value: int
    """D_v."""
    hidden: int
    """D_A."""


@dataclass(frozen=True)
class FeedForwardSpec:
    """Sizes of a feed-forward network."""

    sizes: tuple[int, ...]
    """n_0, ..., n_L; those of a zoo's classifier are (D, hidden, classes)."""

    @property
    def layers(self) -> int:
        """Return the number L of linear layers."""
        return len(self.sizes) - 1


@dataclass(frozen=True)
class EmbeddingSpec:
    """Sizes of a patch embedding."""

    channels: int
    """Channels of the image."""
    width: int
    """D."""
    patch: tuple[int, int]
    """Height and width of a patch."""
    tokens: int
    """Count of patches of an image."""


@dataclass(frozen=True)
class TransformerSpec:
    """Sizes of a whole network."""

    family: ClassVar[str] = "zoo_transformer"
    """Name of its `families.registry.Family`."""
    blocks: tuple[BlockSpec, ...]
    classifier: FeedForwardSpec
    embedding: EmbeddingSpec | None = None
    """None if the checkpoints have no embedding."""

    @property
    def kind(self) -> str:
        """Return the kind of the network as text."""
        return "transformer of the Small-Transformer-Zoo"

    @property
    def description(self) -> str:
        """Return kind, blocks and widths as text."""
        return f"transformer of {len(self.blocks)} blocks, widths {', '.join(map(str, self.widths))}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the width D of every part from input to output: embedding, blocks, input of the classifier."""
        embedding = () if self.embedding is None else (self.embedding.width,)
        return (*embedding, *(block.width for block in self.blocks), self.classifier.sizes[0])


@dataclass(frozen=True)
class NetworkSpec:
    """Sizes and function of a feed-forward network: an MLP, an INR or a CNN.

    Convolutions come first, then linear layers. Between them stands global average pooling, or the maps are flattened.

    Raises:
        ValueError: the layers' counts, an activation or a residual connection is not possible.
    """

    family: ClassVar[str] = "feed_forward"
    """Name of its `families.registry.Family`."""
    sizes: tuple[int, ...]
    """n_0, ..., n_L, counts of neurons or feature maps."""
    kernels: tuple[tuple[int, int] | None, ...]
    """Height and width of each layer's kernel, None for a linear layer."""
    activation: str = "relu"
    """One of ACTIVATIONS, after every layer but the last."""
    omega: float = 1.0
    """Frequency of sine: sin(omega x)."""
    strides: tuple[int, ...] = ()
    """Steps of the convolutions; empty: 1 each."""
    paddings: tuple[int, ...] = ()
    """Zeros around the maps that each convolution reads; empty: 0 each."""
    residuals: tuple[int, ...] = ()
    """Residual connections: of each convolution -1, or the layer whose output is added before the activation to the
    maps that both have. Empty: none."""
    flattened: int = 1
    """Numbers of each feature map that the first linear layer reads; 1: global average pooling."""
    offset: float = 0.0
    """Number that is added to the outputs."""
    names: tuple[str, ...] = field(default=(), compare=False)
    """Names of the layers in a state dict; empty: 0, 1, ..."""

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation '{self.activation}', expected one of {', '.join(ACTIVATIONS)}")
        if len(self.kernels) != self.layers or len(self.names) not in (0, self.layers):
            raise ValueError(f"{len(self.kernels)} kernels and {len(self.names)} names of {self.layers} layers")
        if any(kernel is not None and len(kernel) != 2 for kernel in self.kernels):
            raise ValueError(f"kernels {self.kernels}, expected height and width of each, or None")
        if None in self.kernels and any(self.kernels[self.kernels.index(None) :]):
            raise ValueError("a convolution after a linear layer")
        for name in ("strides", "paddings", "residuals"):
            count = len(vars(self)[name])
            if count not in (0, self.convolutions):
                raise ValueError(f"{count} {name} of {self.convolutions} convolutions")
        if any(not -1 <= other < layer for layer, other in enumerate(self.residuals)):
            raise ValueError(f"residuals {self.residuals}, expected -1 or an earlier layer of each")

    @property
    def kind(self) -> str:
        """Return the kind of the network as text."""
        return "CNN" if self.convolutions else "INR" if self.activation == "sine" else "MLP"

    @property
    def description(self) -> str:
        """Return kind, sizes and activation as text."""
        return f"{self.kind} {' -> '.join(map(str, self.sizes))} with {self.activation}"

    @property
    def layers(self) -> int:
        """Return the number L of layers."""
        return len(self.sizes) - 1

    @property
    def convolutions(self) -> int:
        """Return the number of convolutions."""
        return sum(kernel is not None for kernel in self.kernels)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Return the layers' names in a state dict."""
        return self.names or tuple(map(str, range(self.layers)))

    @property
    def trailing(self) -> tuple[tuple[int, ...], ...]:
        """Return the dimensions of each layer's weight after [n_(s+1), n_s]: of a kernel, or of flattened maps."""
        flat: list[tuple[int, ...]] = [kernel or () for kernel in self.kernels]
        if self.flattened > 1:
            flat[self.convolutions] = (self.flattened,)
        return tuple(flat)

    @property
    def channels(self) -> int:
        """Return the channels of features: the most numbers that a layer has for a pair of neurons."""
        return max(map(math.prod, self.trailing))

    @property
    def feed_forward(self) -> FeedForwardSpec:
        """Return the sizes from which layers between weight spaces are built."""
        return FeedForwardSpec(self.sizes)


def are_alike(spec: object, other: object) -> bool:
    """Return whether networks are feed-forward ones of the same sizes; activations and strides may differ."""
    if not (isinstance(spec, NetworkSpec) and isinstance(other, NetworkSpec)):
        return False
    return (spec.sizes, spec.trailing) == (other.sizes, other.trailing)
