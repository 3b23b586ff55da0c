"""Sizes of a transformer, in frozen specs that layers are built from and check their input against."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockSpec:
    """Sizes of one encoder block: h heads, D, D_k, D_v and D_A (arXiv 2410.04209, section 3)."""

    heads: int
    width: int
    key: int
    value: int
    hidden: int


@dataclass(frozen=True)
class FeedForwardSpec:
    """Sizes n_0, ..., n_L of a feed-forward network; a zoo's classifier has (D, hidden, classes)."""

    sizes: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Return the number L of linear layers."""
        return len(self.sizes) - 1


@dataclass(frozen=True)
class EmbeddingSpec:
    """Sizes of a patch embedding: image channels, D, patch height and width, number of tokens."""

    channels: int
    width: int
    patch: tuple[int, int]
    tokens: int


@dataclass(frozen=True)
class TransformerSpec:
    """Sizes of a whole network; `embedding` is None where the embedding is not part of the checkpoint."""

    blocks: tuple[BlockSpec, ...]
    classifier: FeedForwardSpec
    embedding: EmbeddingSpec | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """Return the width D of every part from input to output: embedding, blocks, input of the classifier."""
        embedding = () if self.embedding is None else (self.embedding.width,)
        return (*embedding, *(block.width for block in self.blocks), self.classifier.sizes[0])
