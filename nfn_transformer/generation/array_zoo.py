"""Array zoos: all networks of a zoo in one array, in the layout of the Small CNN Zoo (Unterthiner et al. 2020).

`weights.npy` holds a row for each network, `layout.csv` the place of each variable in a row, and `metrics.csv.gz` the
networks' labels and hyperparameters. Variables have TensorFlow's names and order of axes.
"""

import gzip
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nfn_transformer.atomic_files import csv_text
from nfn_transformer.generation.zoo_writer import open_zoo

_KINDS = {5: "conv2d", 3: "dense"}
"""Axes of stacked weights, networks included -> TensorFlow's name of the layer."""


@dataclass(frozen=True)
class ArrayZoo:
    """The networks of a zoo."""

    tensors: Sequence[Tensor]
    """Weights [n, out, in, (height, width)] and biases [n, out] of the layers, in turn."""
    columns: Mapping[str, Sequence[object]]
    """The table of the networks: name -> n values."""


def write_array_zoo(
    zoo: ArrayZoo, out: Path, dataset: str, scratch: Path, half: bool, before: Callable[[], object]
) -> None:
    """Write a zoo to a new folder, or to a zip if `out` ends so; it appears whole, below `dataset`.

    Args:
        zoo: the networks.
        out: path of the zoo.
        dataset: name of the data set.
        scratch: an empty folder on the same file system.
        half: True to store the numbers in half precision.
        before: called when all is written, before the zoo appears at its path.
    """
    lines: list[list[object]] = []
    arrays = []
    start = 0
    for layer, (weight, bias) in enumerate(zip(zoo.tensors[::2], zoo.tensors[1::2], strict=True)):
        kind = _KINDS[weight.dim()]
        number = sum(other.dim() == weight.dim() for other in zoo.tensors[: 2 * layer : 2])
        name = f"sequential/{kind}_{number}" if number else f"sequential/{kind}"
        # [n, out, in] -> [n, in, out]; [n, out, in, height, width] -> [n, height, width, in, out]
        kernel = weight.permute(0, 3, 4, 2, 1) if kind == "conv2d" else weight.transpose(1, 2)
        for variable, tensor in (("kernel:0", kernel), ("bias:0", bias)):
            shape = tuple(tensor.shape[1:])
            end = start + tensor[0].numel()
            lines.append([f"{name}/{variable}", start, end, end - start, shape])
            arrays.append(tensor.flatten(1))
            start = end
    rows = torch.cat(arrays, 1).to(torch.float16 if half else torch.float32)
    content = io.BytesIO()
    np.save(content, rows.numpy())
    layout = csv_text(["varname", "start_idx", "end_idx", "size", "shape"], lines)
    metrics = csv_text(list(zoo.columns), zip(*zoo.columns.values(), strict=True))
    with open_zoo(out, scratch, prefix="") as add_file:
        add_file(f"{dataset}/weights.npy", content.getvalue())
        add_file(f"{dataset}/layout.csv", layout.encode())
        # Without a time: the same networks make the same bytes.
        add_file(f"{dataset}/metrics.csv.gz", gzip.compress(metrics.encode(), mtime=0))
        before()
