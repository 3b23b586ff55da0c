"""Predictions for a zoo's networks, and the table that they are written to."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nfn_transformer.atomic_files import write_csv
from nfn_transformer.models.predictor import Features, Predictor
from nfn_transformer.weights.containers import TransformerWeights
from nfn_transformer.zoo.reading import Zoo
from nfn_transformer.zoo.several_sizes import MixedZoo

EVALUATION_BATCH = 256


def predict_logits(model: Predictor, zoo: Zoo | MixedZoo, index: Tensor) -> Tensor:
    """Logits [n] on the CPU for the checkpoints that `index` [n] selects in a zoo on the CPU."""
    model.eval()
    logits = torch.empty(len(index), dtype=next(model.parameters()).dtype, device=model.device)
    with torch.inference_mode():
        for batch, out in zip(index.split(EVALUATION_BATCH), logits.split(EVALUATION_BATCH), strict=True):
            for places, rows, zoo_of_size in zoo.by_size(batch):
                out[places.to(out.device)] = model(zoo_of_size.weights_of(rows).to(model.device))
    return logits.cpu()


def predict_logits_of_features(model: Predictor, batches: Iterable[Features]) -> Tensor:
    """Logits [n] on the CPU for n networks, whose features come in batches on the model's device."""
    model.eval()
    with torch.inference_mode():
        parts = [model.from_features(features) for features in batches]
    return torch.cat(parts).cpu()


def predict_logits_of(model: Predictor, weights: TransformerWeights, device: torch.device) -> Tensor:
    """Logits [n] on the CPU for n networks, which go to the model's device batch by batch."""
    model.eval()
    starts = range(0, weights.batch, EVALUATION_BATCH)
    with torch.inference_mode():
        parts = [model(weights[start : start + EVALUATION_BATCH].to(device)) for start in starts]
    return torch.cat(parts).cpu()


def write_predictions(path: Path, names: Sequence[str], predicted: Tensor, labels: Tensor | None = None) -> None:
    """Write a CSV with the columns file, predicted and, where `labels` are known, accuracy."""
    columns = [names, predicted.tolist(), *([] if labels is None else [labels.tolist()])]
    header = ["file", "predicted", "accuracy"][: len(columns)]
    write_csv(path, header, [list(row) for row in zip(*columns, strict=True)])
