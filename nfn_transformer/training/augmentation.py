"""Enlargement of a zoo by its symmetry group: transformed copies of networks, which are the same functions."""

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nfn_transformer.errors import ZooError
from nfn_transformer.groups.random_elements import transform_each
from nfn_transformer.seeding import make_generator
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.weights.spec import TransformerSpec
from nfn_transformer.weights.state_dicts import state_dict_from_weights
from nfn_transformer.zoo.reading import Zoo

if TYPE_CHECKING:
    from nfn_transformer.training.data import Split

_BATCH = 256


def enlarge(zoo: Zoo, split: "Split", factor: int, scale: float, seed: int) -> tuple[Zoo, "Split"]:
    """Enlarge each side of a split to `factor` times its size by transformed copies of its own networks.

    A copy has the label, the run and the hyperparameters of its original, and a name that marks it as a copy. The
    copies follow the originals, both in the zoo and on each side.

    Args:
        zoo: on the CPU.
        split: of the zoo's checkpoints.
        factor: at least 1; 1 changes nothing.
        scale: entries of M and N are uniform in [-scale, scale], see `groups.random_elements`.
        seed: of the draws; each side and each round of copies has a stream of its own.

    Raises:
        ZooError: a copy does not fit float32.
    """
    members = sum(len(getattr(split, side.name)) for side in fields(split))
    rows = zoo.rows.new_empty(len(zoo) + (factor - 1) * members, zoo.rows.shape[1])
    rows[: len(zoo)] = zoo.rows
    origins, names, sides, end = [torch.arange(len(zoo))], list(zoo.names), {}, len(zoo)
    for side in fields(split):
        index = getattr(split, side.name)
        copies = []
        for copy in range(1, factor):
            start, end = end, end + len(index)
            _transform(zoo, index, scale, make_generator(seed, "augmentation", side.name, copy), rows[start:end])
            names.extend(f"{zoo.names[i]} (copy {copy})" for i in index.tolist())
            origins.append(index)
            copies.append(torch.arange(start, end))
        sides[side.name] = torch.cat([index, *copies])
    origin = torch.cat(origins)
    runs = [zoo.runs[i] for i in origin.tolist()]
    epochs = [zoo.epochs[i] for i in origin.tolist()] if zoo.epochs else []
    labels, hyperparameters = zoo.labels[origin], zoo.hyperparameters[origin]
    larger = replace(zoo, rows=rows, labels=labels, names=names, runs=runs, epochs=epochs)
    larger = replace(larger, hyperparameters=hyperparameters)
    return larger, replace(split, **sides)


def _transform(zoo: Zoo, index: Tensor, scale: float, generator: torch.Generator, rows: Tensor) -> None:
    """Write transformed copies of the checkpoints that `index` [n] selects into `rows` [n, row length]."""
    for part, out in zip(index.split(_BATCH), rows.split(_BATCH), strict=True):
        weights, spec = zoo.weights(part), zoo.spec
        assert isinstance(weights, TransformerWeights), "data.prepare refuses others"
        assert isinstance(spec, TransformerSpec), "data.prepare refuses others"
        state = state_dict_from_weights(transform_each(weights, spec, scale, generator))
        out.copy_(torch.cat([state[key].flatten(1) for key in zoo.shapes], dim=1))
        finite = torch.isfinite(out).all(1)
        if not finite.all():
            name = zoo.names[int(part[~finite][0])]
            raise ZooError(f"{name}: a transformed copy is beyond float32; its weights are too large to be enlarged")
