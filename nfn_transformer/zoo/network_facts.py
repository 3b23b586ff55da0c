"""Facts of a network's function that its weights do not tell: activation, frequency, strides, ..."""

import math
from collections.abc import Mapping
from typing import Any

from nfn_transformer.errors import UserError
from nfn_transformer.printable import printable, quoted
from nfn_transformer.weights.standard_libraries import ACTIVATION_OF

FACTS = (
    *("activation", "omega", "offset", "stride", "padding"),
    *("norm_placement", "norm_epsilon", "causal_attention", "token_pooling", "token_positions", "final_norm"),
)
"""Names of the facts, as tables' columns and flags have them."""

ACTIVATION_NAMES = {
    **{name: name for name in ("relu", "leaky_relu", "gelu", "tanh", "sigmoid", "sine", "none")},
    **{"leakyrelu": "leaky_relu", "lrelu": "leaky_relu", "sin": "sine", "siren": "sine"},
    **{"linear": "none", "identity": "none"},
    **ACTIVATION_OF,
}
"""Names of activations in tables -> one of `weights.spec.ACTIVATIONS` or `standard_spec.STANDARD_ACTIVATIONS`."""

FIELDS = {
    **{"stride": "strides", "padding": "paddings", "norm_placement": "placement", "norm_epsilon": "epsilon"},
    **{"causal_attention": "causal", "token_pooling": "pooling", "token_positions": "positions"},
}
"""Facts -> field of a spec, where its name is another."""

_CHOICES: dict[str, dict[str, Any]] = {
    "norm_placement": {"pre": "pre", "post": "post"},
    "causal_attention": {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False},
    "token_pooling": {"mean": "mean", "first": "first", "class": "first", "last": "last", "none": "none"},
    "token_positions": {name: name for name in ("none", "sinusoidal", "sinusoidal_2d")},
    "final_norm": {name: name for name in ("none", "before_pooling", "after_pooling")},
}
"""Fact -> its texts and what each means."""

CONFIG_LISTS = {"stride": "strides", "padding": "paddings", "residual": "residuals"}
"""Lists in a checkpoint's `config`, with a number for each convolution -> field of `NetworkSpec`."""

_MOST_LAYERS = 1_000


def network_facts(cells: Mapping[str, str], given: Mapping[str, str], default: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a spec that texts tell: `activation`, `omega`, `offset`, `strides`, `placement`, ...

    Strides and paddings are tuples: of one number for all convolutions, or of one each.

    Args:
        cells: those of FACTS that a table tells; empty cells are absent.
        given: those that the user tells.
        default: those of the format, where neither tells.

    Raises:
        UserError: table and user contradict each other, or a text is no activation or number.
    """
    for name, text in given.items():
        if name in cells and _fact(name, cells[name], f"column {name}") != _fact(name, text, f"--{name}"):
            raise UserError(f"--{name} {text}: contradicts the table, whose column {name} is {quoted(cells[name])}")
    texts = {**default, **given, **cells}
    values = {name: _fact(name, text, f"--{name}" if name in given else name) for name, text in texts.items()}
    return {FIELDS.get(name, name): value for name, value in values.items()}


def _fact(name: str, text: str, source: str) -> Any:
    shown = printable(text, 100) if source.startswith("--") else quoted(text)
    if name == "activation":
        known = ACTIVATION_NAMES.get(text.strip().lower())
        if known is None:
            raise UserError(f"{source} {shown}: expected one of {', '.join(ACTIVATION_NAMES)}")
        return known
    if name in _CHOICES:
        if text.strip().lower() not in _CHOICES[name]:
            raise UserError(f"{source} {shown}: expected one of {', '.join(_CHOICES[name])}")
        return _CHOICES[name][text.strip().lower()]
    if name in ("omega", "offset", "norm_epsilon"):
        number = _number(text)
        problem = {"norm_epsilon": "positive", "omega": "nonzero"}.get(name, "")
        if not abs(number) < 1e6 or (problem and abs(number) < 1e-30) or (name == "norm_epsilon" and number < 0):
            raise UserError(f"{source} {shown}: expected a {problem}{' ' * bool(problem)}number")
        return number
    parts = text.replace(",", " ").strip("()[] ").split()
    numbers = [_number(part) for part in parts[:100]]
    low = 1 if name == "stride" else 0
    if not numbers or not all(low <= number < 1000 and number.is_integer() for number in numbers):
        raise UserError(f"{source} {shown}: expected a whole number of at least {low}, or one per convolution")
    return tuple(map(int, numbers))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value


def config_facts(config: Mapping) -> dict[str, Any]:
    """Return the fields of `NetworkSpec` that a checkpoint's `config` tells, as those of CNN Wild Park have it.

    Raises:
        ValueError: a value is not of its type.
    """
    activation = config.get("activation")
    known = ACTIVATION_NAMES.get(activation.lower()) if isinstance(activation, str) else "none"
    if known is None or not isinstance(activation, str | None):
        raise ValueError(f"config: activation {str(activation)[:50]!r}: expected one of {', '.join(ACTIVATION_NAMES)}")
    facts: dict[str, Any] = {"activation": known}
    for key, name in CONFIG_LISTS.items():
        values = config.get(key)
        if not isinstance(values, list | tuple) or len(values) > _MOST_LAYERS:
            raise ValueError(f"config: '{key}' is a {type(values).__name__}, expected a list with a number a layer")
        low = {"stride": 1, "padding": 0, "residual": -1}[key]
        if not all(type(value) is int and low <= value < _MOST_LAYERS for value in values):
            raise ValueError(f"config: '{key}' holds others than whole numbers from {low}")
        if key != "residual" or any(value >= 0 for value in values):
            facts[name] = tuple(values)
    return facts
