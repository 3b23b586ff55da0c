"""Training a Transformer-NFN the published way, the baseline of the speed benchmarks.

What a researcher writes from arXiv 2410.04209 and PyTorch's tutorials: layers term by term (`published_layers`), a data
set in memory, a DataLoader that collates sample by sample in worker processes, and Adam with its defaults.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from published_layers import TermByTermEquivariant, TermByTermInvariant
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from nfn_transformer import BlockWeights, EmbeddingWeights, FeedForwardWeights, TransformerWeights, Zoo, relu
from nfn_transformer.models.branch import EquivariantEncoder
from nfn_transformer.models.predictor import SinglePredictor

Sample = dict[str, list[dict[str, Tensor]] | dict[str, Tensor | tuple[Tensor, ...]]]


class PublishedEncoder(nn.Module):
    """The package's encoder with its polynomial layers term by term; it starts with the same parameters.

    Args:
        ours: the encoder of a predictor whose `enc_mode` is inv.
    """

    def __init__(self, ours: EquivariantEncoder):
        super().__init__()
        self.equivariant = nn.ModuleList(
            nn.ModuleList(map(TermByTermEquivariant, layers)) for layers in ours.equivariant
        )
        self.invariant = nn.ModuleList(map(TermByTermInvariant, ours.invariant))
        self.block_norms, self.norm, self.head = map(deepcopy, (ours.block_norms, ours.norm, ours.head))

    def forward(self, blocks: tuple[BlockWeights, ...]) -> Tensor:
        """Blocks of one channel to [b, out]."""
        parts = []
        for block, layers, invariant, norm in zip(
            blocks, self.equivariant, self.invariant, self.block_norms, strict=True
        ):
            for layer in layers:
                block = relu(layer(block))
            parts.append(norm(invariant(block)))  # [b, e]
        return self.head(self.norm(torch.cat(parts, dim=1)))


class PublishedPredictor(nn.Module):
    """The same function as a SinglePredictor with `enc_mode` inv, its encoder computed term by term.

    Args:
        ours: the predictor whose parameters this one starts with; it is copied, never changed.
    """

    def __init__(self, ours: SinglePredictor):
        super().__init__()
        self.encoder = PublishedEncoder(ours.encoder)
        self.classifier, self.embedding, self.output = map(deepcopy, (ours.classifier, ours.embedding, ours.output))

    def forward(self, weights: TransformerWeights) -> Tensor:
        """The logit of the predicted accuracy, [b]."""
        parts = [self.encoder(weights.blocks)]
        if self.classifier is not None:
            parts.append(self.classifier(weights))
        if self.embedding is not None:
            parts.append(self.embedding(weights))
        return self.output(torch.cat(parts, dim=1)).squeeze(1)


class PublishedDataset(Dataset):
    """Networks of a zoo in memory, on the CPU: a list of pairs (sample, label []).

    A sample holds the tensors of one network's TransformerWeights, [1, ...], without the batch dimension:
    `blocks`, a list of dictionaries field name -> tensor, and such dictionaries for `classifier` and, where
    the checkpoints have one, `embedding`.

    Args:
        zoo: the networks.
        index: [n], the places in the zoo of those to keep.
    """

    def __init__(self, zoo: Zoo, index: Tensor):
        self.samples = [(_sample(zoo.weights(one)), zoo.labels[one].squeeze(0).cpu()) for one in index.split(1)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: int) -> tuple[Sample, Tensor]:
        return self.samples[place]


def _sample(one: TransformerWeights) -> Sample:
    network = one.map(lambda tensor: tensor.squeeze(0).cpu().clone(memory_format=torch.contiguous_format))
    sample: Sample = {"blocks": [vars(block) for block in network.blocks], "classifier": vars(network.classifier)}
    if network.embedding is not None:
        sample["embedding"] = vars(network.embedding)
    return sample


def collated_weights(samples: Mapping) -> TransformerWeights:
    """The weights [b, 1, ...] of b samples that PyTorch's default collation has stacked key by key."""
    classifier = {name: tuple(tensors) for name, tensors in samples["classifier"].items()}
    return TransformerWeights(
        blocks=tuple(BlockWeights(**block) for block in samples["blocks"]),
        classifier=FeedForwardWeights(**classifier),
        embedding=EmbeddingWeights(**samples["embedding"]) if "embedding" in samples else None,
    )


def published_loader(
    zoo: Zoo, index: Tensor, batch_size: int, workers: int, generator: torch.Generator
) -> DataLoader[tuple[Sample, Tensor]]:
    """Batches (samples, labels [b]) of a part of a zoo, in a new order every epoch.

    Memory is pinned where there is a GPU, and workers live on from epoch to epoch: what one sets where speed matters.

    Args:
        zoo, index: as of PublishedDataset.
        batch_size: networks of a batch; the last one may have fewer.
        workers: processes that collate; 0 collates in this one.
        generator: source of the orders.
    """
    return DataLoader(
        PublishedDataset(zoo, index),
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        generator=generator,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
    )


def published_optimizer(model: nn.Module, learning_rate: float = 1e-3) -> torch.optim.Adam:
    """Adam with PyTorch's defaults."""
    return torch.optim.Adam(model.parameters(), lr=learning_rate)


def published_training_step(
    model: PublishedPredictor, optimizer: torch.optim.Optimizer, batch: tuple[Mapping, Tensor]
) -> float:
    """One step on a batch of `published_loader`, moved to the model's device first; the batch's mean loss."""
    samples, labels = batch
    device = next(model.parameters()).device
    weights = collated_weights(samples).to(device, non_blocking=True)
    labels = labels.to(device, non_blocking=True)
    optimizer.zero_grad()
    loss = binary_cross_entropy_with_logits(model(weights), labels)
    loss.backward()
    optimizer.step()
    return loss.item()
