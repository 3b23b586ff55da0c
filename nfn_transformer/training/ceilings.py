"""Ceiling of sampling: how well a network's accuracy on labelled images ranks the labels of a zoo."""

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from nfn_transformer.errors import SpecError, UserError
from nfn_transformer.families.registry import FAMILIES
from nfn_transformer.generation.samples import LabelledSamples
from nfn_transformer.generation.task_data import read_images
from nfn_transformer.training.config import RunConfig
from nfn_transformer.training.metrics import kendall_tau
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

SAMPLING = "tau_that_sampling_leaves"
"""Key in `test_references` of results.json."""

_NETWORKS, _IMAGES = 32, 256


def fresh_images(folder: Path, skip: int) -> LabelledSamples:
    """Return the test images of a task, without the first `skip`.

    Raises:
        UserError: the path does not exist, or no image is left.
        ZooError: a file has another format.
    """
    if not folder.exists():
        raise UserError(f"--ceiling_images {folder}: no such folder or .npz")
    test = read_images(folder).test
    if skip >= len(test.labels):
        raise UserError(f"--ceiling_skip {skip}: expected less than the {len(test.labels)} test images of {folder}")
    return LabelledSamples(test.inputs[skip:], test.labels[skip:])


def check_ceiling(config: RunConfig, zoo: Zoo | MixedZoo) -> None:
    """Raise UserError where a zoo's networks do not classify the images of --ceiling_images."""
    if config.data.task != "accuracy":
        raise UserError(f"--ceiling_images {config.ceiling_images}: requires --task accuracy, got {config.data.task}")
    samples = fresh_images(Path(config.ceiling_images), config.ceiling_skip)
    classes, shape = int(samples.labels.max()) + 1, " x ".join(map(str, samples.inputs.shape[1:]))
    for weights in zoo.one_of_each_size(torch.arange(len(zoo))):
        try:
            outputs = _logits(zoo.spec.family)(samples.inputs[:1], weights)
        except (SpecError, RuntimeError, ValueError, AssertionError, IndexError):
            outputs = torch.zeros(1, 1, 0)
        if outputs.ndim != 3 or outputs.shape[2] < classes:
            raise UserError(
                f"--ceiling_images {config.ceiling_images}: images of {shape} pixels in {classes} classes, which some "
                f"networks of zoo '{config.data.dataset}' do not classify"
            )


def sampling_ceiling(config: RunConfig, zoo: Zoo | MixedZoo, index: Int64[Tensor, " m"]) -> dict[str, float]:
    """Return the tau between labels of networks and their accuracy on the images of --ceiling_images, by its name."""
    samples = fresh_images(Path(config.ceiling_images), config.ceiling_skip)
    accuracies = accuracies_on(samples, zoo, index, torch.device(config.device))
    return {SAMPLING: kendall_tau(accuracies, zoo.labels[index].double())}


@torch.inference_mode()
def accuracies_on(
    samples: LabelledSamples, zoo: Zoo | MixedZoo, index: Int64[Tensor, " m"], device: torch.device
) -> Float64[Tensor, " m"]:
    """Return the accuracy of each network that `index` selects in a zoo, on labelled samples."""
    accuracies, logits = torch.empty(len(index), dtype=torch.float64), _logits(zoo.spec.family)
    samples = samples.to(device)
    for start in range(0, len(index), _NETWORKS):
        for positions, rows, of_size in zoo.by_size(index[start : start + _NETWORKS]):
            weights = of_size.weights_of(rows).to(device)
            parts = zip(samples.inputs.split(_IMAGES), samples.labels.split(_IMAGES), strict=True)
            right = [(logits(inputs, weights).argmax(-1) == labels).double().sum(1) for inputs, labels in parts]
            accuracies[start + positions] = (torch.stack(right).sum(0) / len(samples.labels)).cpu()
    return accuracies


def _logits(family: str) -> Callable[..., Tensor]:
    """Return the map from inputs [n, ...] and weights of b networks to logits [b, n, classes]."""
    if not FAMILIES[family].logits:
        raise SpecError(f"networks of family {family}, whose answers are not computed")
    return resolve_name(FAMILIES[family].logits)
