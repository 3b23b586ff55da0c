"""Hyperparameters and sizes of a zoo's runs."""

from dataclasses import dataclass

from nfn_transformer.generation.samples import TaskData
from nfn_transformer.weights.spec import BlockSpec, EmbeddingSpec, FeedForwardSpec, TransformerSpec


@dataclass(frozen=True)
class Hyperparameters:
    """Optimizer, initialisation and regularisation of a run, under the names of the release's metadata."""

    optimizer: str
    """Name of the optimizer, a key of `optimizers.RULES`."""
    w_init_std: float
    """Standard deviation of initial weights, before they are cut off at two of it."""
    l2_regularize: float
    """Weight decay."""
    train_fraction: float
    """Share of the train samples that the run trains on."""
    dropout: float
    """Probability of dropout."""
    lr: float
    """Learning rate."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a run's network."""

    embed_dim: int
    """Width D of the tokens."""
    n_attention_heads: int
    """Heads of each block."""
    n_layers: int
    """Encoder blocks."""
    hidden: int
    """Hidden width D_A of each block's MLP."""

    def spec(self, classes: int, embedding: EmbeddingSpec | None) -> TransformerSpec:
        """Return the network's spec; the classifier's hidden width is D, as in the release."""
        D, head = self.embed_dim, self.embed_dim // self.n_attention_heads
        block = BlockSpec(self.n_attention_heads, D, head, head, self.hidden)
        return TransformerSpec((block,) * self.n_layers, FeedForwardSpec((D, D, classes)), embedding)


@dataclass(frozen=True)
class ZooRun:
    """One network to train."""

    number: int
    """Number in the zoo."""
    settings: Hyperparameters
    """Hyperparameters of the training."""
    architecture: Architecture
    """Sizes of the network."""
    epochs: int
    """Length of the training."""


def run_spec(architecture: Architecture, data: TaskData, patch: int) -> TransformerSpec:
    """Return the spec of networks of these sizes on this data; images are cut into patches of `patch` x `patch`."""
    return architecture.spec(data.classes, data.embedding(architecture.embed_dim, patch))
