"""Facts of a standard transformer that its weights do not tell: from a library's configuration."""

import json
import math
from collections.abc import Mapping
from typing import Any

from nfn_transformer.errors import SpecError
from nfn_transformer.printable import quoted
from nfn_transformer.weights.standard_libraries import ACTIVATION_OF, CONFIG_FACTS, REFUSED_CONFIG

CONFIG_FILE = "config.json"
"""Name of a configuration beside a checkpoint."""

CONFIG_NAMES = ("model_args", "config", "hyper_parameters", "args")
"""Names under which training checkpoints hold a configuration."""

_LARGEST_CONFIG = 2**22
_INNER = ("model_args", "rope_parameters", "rope_scaling", "pretrained_cfg")
_COUNTS = ("heads", "groups", "key")


def parse_config(content: bytes) -> Mapping[str, Any]:
    """Return the configuration in the content of a config.json.

    Raises:
        SpecError: the content is no JSON of names and values.
    """
    try:
        config = json.loads(content) if len(content) <= _LARGEST_CONFIG else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise SpecError(f"{CONFIG_FILE}: expected JSON of names and values")
    return config


def facts_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a configuration tells, see `standard_layouts.TRANSFORMER_FACTS`.

    Raises:
        SpecError: the network cannot be represented exactly, or a value is not of its type.
    """
    inner = [value for name in _INNER if isinstance(value := config.get(name), Mapping)]
    values = {name: value for each in (*inner, config) for name, value in each.items() if value is not None}
    if isinstance(scaling := config.get("rope_scaling"), Mapping) and "type" in scaling:  # of older versions
        values["rope_type"] = scaling["type"]
    for name, exact, what in REFUSED_CONFIG:
        if (value := values.get(name)) not in exact and isinstance(value, bool | int | float | str):
            raise SpecError(f"{CONFIG_FILE}: {name} {quoted(str(value))}: {what}, which cannot be represented exactly")
    _check_window(values)
    facts: dict[str, Any] = {}
    for name, fact in CONFIG_FACTS.items():
        if name in values and fact not in facts:
            facts[fact] = _value(name, fact, values[name])
    if values.get("global_pool") in ("avg", "token"):  # of timm
        facts["pooling"] = "mean" if values["global_pool"] == "avg" else "first"
    return facts


def _check_window(values: Mapping[str, Any]) -> None:
    """Raise SpecError for a sliding window that is shorter than the longest text."""
    window, most = values.get("sliding_window"), values.get("max_position_embeddings")
    is_used = values.get("use_sliding_window", True) is not False
    if is_used and isinstance(window, int) and (not isinstance(most, int) or window < most):
        raise SpecError(
            f"{CONFIG_FILE}: sliding_window {window} of {most} tokens: a sliding window, which cannot be represented "
            "exactly"
        )


def _value(name: str, fact: str, value: Any) -> Any:
    """Return a value of a configuration as a fact."""
    if fact == "activation":
        if not isinstance(value, str) or value not in ACTIVATION_OF:
            raise SpecError(
                f"{CONFIG_FILE}: {name} {quoted(str(value)[:50])}: expected one of {', '.join(ACTIVATION_OF)}"
            )
        return ACTIVATION_OF[value]
    if fact == "image":
        sides = value if isinstance(value, list | tuple) else (value, value)
        if len(sides) == 2 and all(type(side) is int and 0 < side < 2**20 for side in sides):
            return tuple(sides)
    elif fact == "placement":
        if isinstance(value, bool):
            return "pre" if value else "post"
    elif fact in _COUNTS:
        if type(value) is int and 0 < value < 2**20:
            return value
    elif fact == "model_type":
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and math.isfinite(value) and 0 < value < 1e12:
        return float(value)
    raise SpecError(f"{CONFIG_FILE}: {name} {quoted(str(value)[:50])}: expected another kind of value")
