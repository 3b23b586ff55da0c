"""What the runs of a zoo differ in: hyperparameters of the training, and sizes of the network."""

from dataclasses import dataclass

from nfn_transformer.generation.samples import TaskData
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec


@dataclass(frozen=True)
class Hyperparameters:
    """One run's optimizer, initialisation and regularisation, under the names of the release's metadata."""

    optimizer: str
    w_init_std: float
    l2_regularize: float
    train_fraction: float
    dropout: float
    lr: float


@dataclass(frozen=True)
class Architecture:
    """One run's sizes: D, heads, blocks and the hidden width D_A of each block's MLP."""

    embed_dim: int
    n_attention_heads: int
    n_layers: int
    hidden: int

    def spec(self, classes: int, embedding: EmbeddingSpec | None) -> TransformerSpec:
        """The network's spec; the classifier's hidden width is D, as in the release."""
        D, head = self.embed_dim, self.embed_dim // self.n_attention_heads
        block = BlockSpec(self.n_attention_heads, D, head, head, self.hidden)
        return TransformerSpec((block,) * self.n_layers, FeedForwardSpec((D, D, classes)), embedding)


@dataclass(frozen=True)
class Run:
    """One network to train: its number in the zoo, hyperparameters, sizes, and the epochs of its training."""

    number: int
    settings: Hyperparameters
    architecture: Architecture
    epochs: int


def run_spec(architecture: Architecture, data: TaskData, patch: int) -> TransformerSpec:
    """The spec of networks of these sizes on this data; images are cut into patches of `patch` pixels a side."""
    return architecture.spec(data.classes, data.embedding(architecture.embed_dim, patch))
