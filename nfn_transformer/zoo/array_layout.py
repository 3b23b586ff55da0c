"""Layout of an array zoo's rows: the place of each variable, and its order in PyTorch."""

import csv
import io
import itertools
import math
import re
from dataclasses import dataclass

import numpy as np

from nfn_transformer.printable import quoted
from nfn_transformer.weights.state_dicts import Shape
from nfn_transformer.zoo.sources import MAX_FILE_BYTES

_MOST_VARIABLES = 2_000
_SHAPE = re.compile(r"\(\s*(\d{1,9}(?:\s*,\s*\d{1,9})*)\s*,?\s*\)", re.ASCII)
_VARIABLE = re.compile(r"(?P<layer>.+?)/(?P<kind>kernel|bias)(:0)?")


@dataclass(frozen=True)
class Layout:
    """Place of each tensor of a state dict in a row."""

    shapes: dict[str, Shape]
    """state dict key -> shape in PyTorch's order"""
    columns: np.ndarray
    """[P] int64, column of the file for each number of the state dict"""

    @property
    def convolutions(self) -> int:
        """Return the number of convolutions."""
        return sum(len(shape) == 4 for shape in self.shapes.values())


def parse_layout(text: str) -> Layout:
    """Return the layout of a `layout.csv`: columns varname, start_idx, end_idx, shape.

    Raises:
        ValueError: a column is missing, a row is not as described, or the variables do not fill a row one by one.
    """
    rows = list(itertools.islice(csv.DictReader(io.StringIO(text, newline="")), _MOST_VARIABLES + 1))
    if not rows or len(rows) > _MOST_VARIABLES:
        raise ValueError(f"{len(rows)} variables, expected 1 to {_MOST_VARIABLES}")
    layers: dict[str, dict[str, np.ndarray]] = {}
    covered = np.zeros(0, bool)
    for row in rows:
        for column in ("varname", "start_idx", "end_idx", "shape"):
            if not isinstance(row.get(column), str):
                raise ValueError(f"no column {quoted(column)} in each row; there are {', '.join(map(str, row))[:200]}")
        name = row["varname"]
        match, written = _VARIABLE.fullmatch(name), _SHAPE.fullmatch(row["shape"].strip())
        if match is None:
            raise ValueError(f"varname {quoted(name)}: expected LAYER/kernel:0 or LAYER/bias:0")
        if written is None:
            raise ValueError(f"{quoted(name)} has shape {quoted(row['shape'])}: expected a tuple of whole numbers")
        shape = tuple(int(number) for number in written[1].split(","))
        start, end = (int(row[column]) if row[column].isdecimal() else -1 for column in ("start_idx", "end_idx"))
        if not 0 <= start < end <= MAX_FILE_BYTES // 4 or math.prod(shape) != end - start:
            raise ValueError(f"{quoted(name)} has columns {start} to {end}, expected {math.prod(shape)} of them")
        if len(shape) not in ((1,) if match["kind"] == "bias" else (2, 4)):
            raise ValueError(f"{quoted(name)} has shape {shape}, expected that of a dense layer or a 2-D convolution")
        covered = np.concatenate([covered, np.zeros(max(0, end - len(covered)), bool)])
        if covered[start:end].any():
            raise ValueError(f"{quoted(name)} has columns {start} to {end}, which another variable has too")
        covered[start:end] = True
        kinds = layers.setdefault(match["layer"].replace("/", "."), {})
        kinds[match["kind"]] = np.arange(start, end).reshape(shape)
    if not covered.all():
        raise ValueError(f"no variable has column {int(np.argmin(covered))}")
    shapes, columns, inputs = {}, [], 0
    for layer, kinds in layers.items():
        if set(kinds) != {"kernel", "bias"}:
            raise ValueError(f"{quoted(layer)} has {' and '.join(kinds)}, expected kernel and bias")
        weight = _in_order_of_torch(kinds["kernel"], inputs)
        inputs = weight.shape[0]
        for key, indices in ((f"{layer}.weight", weight), (f"{layer}.bias", kinds["bias"])):
            shapes[key] = indices.shape
            columns.append(indices.ravel())
    return Layout(shapes, np.concatenate(columns))


def _in_order_of_torch(kernel: np.ndarray, maps: int) -> np.ndarray:
    """Return a kernel [h, w, in, out] as [out, in, h, w]; [in, out] as [out, in], `in` channel by channel.

    Args:
        kernel: as TensorFlow has it.
        maps: outputs of the layer before, 0 for none. TensorFlow flattens maps [h, w, maps] with the channel last.
    """
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    inputs, outputs = kernel.shape
    if maps and inputs != maps and inputs % maps == 0:
        return kernel.reshape(inputs // maps, maps, outputs).transpose(2, 1, 0).reshape(outputs, inputs)
    return kernel.T
