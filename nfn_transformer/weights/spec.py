"""Sizes of networks: frozen specs, from which layers are built and by which they check their input."""

from dataclasses import dataclass


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

    blocks: tuple[BlockSpec, ...]
    classifier: FeedForwardSpec
    embedding: EmbeddingSpec | None = None
    """None if the checkpoints have no embedding."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the width D of every part from input to output: embedding, blocks, input of the classifier."""
        embedding = () if self.embedding is None else (self.embedding.width,)
        return (*embedding, *(block.width for block in self.blocks), self.classifier.sizes[0])
