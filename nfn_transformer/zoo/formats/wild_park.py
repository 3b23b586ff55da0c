"""CNN Wild Park (Kofinas et al. 2024, arXiv 2403.12143): CNNs of many sizes and depths, with residual connections.

`RUN/checkpoint_EPOCH/checkpoint.pt` holds `model` (a state dict), `config` (the architecture) and `last_result`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

from nfn_transformer.zoo.checkpoint import Outcome
from nfn_transformer.zoo.faults import Fault, Reason
from nfn_transformer.zoo.formats.registry import ZooFormat, register_format
from nfn_transformer.zoo.listed_files import ROOT, ListedFile, list_files, matching_files
from nfn_transformer.zoo.listing import Listing, ReadRequest
from nfn_transformer.zoo.metadata import Condition, same_value
from nfn_transformer.zoo.network_checkpoint import load_mapping, network_outcome, scalar_text
from nfn_transformer.zoo.network_facts import ACTIVATION_NAMES
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.sources import Source

_PATTERN = ROOT + r"(?P<run>[^/]+)/checkpoint_(?P<epoch>\d+)/checkpoint\.pt"

_LABEL = "test/acc"

_LISTS = {"stride": "strides", "padding": "paddings", "residual": "residuals"}
_MOST_LAYERS = 1_000


def _recognize(source: Source, dataset: str) -> bool:
    return bool(matching_files(source, dataset, _PATTERN))


def _list(source: Source, request: ReadRequest) -> Listing:
    """Return the CNNs of the park; a condition is one on the files' `config`."""
    files = [
        ListedFile(match[0], match["run"], match["run"], canonical_epoch(match["epoch"]))
        for match in matching_files(source, request.dataset, _PATTERN)
    ]
    read = functools.partial(read_cnn, label=request.columns.label or _LABEL, condition=request.condition)
    columns = replace(request.columns, label=None)  # the files themselves tell labels, and meet conditions
    return list_files(source, replace(request, condition=Condition(), columns=columns), files, read, {})


def read_cnn(
    name: str,
    content: bytes,
    weights_key: str | None = None,
    read_beside: Callable[[str], bytes] | None = None,
    *,
    label: str = _LABEL,
    condition: Condition = Condition(),  # noqa: B008 - it is frozen
) -> Outcome:
    """Return the outcome of reading a CNN of the park.

    Args:
        name, content, weights_key, read_beside: see `checkpoint.read_checkpoint`.
        label: key of the label in `last_result`.
        condition: on the values of `config`; others are left out.
    """
    try:
        loaded = load_mapping(content)
        parts = {}
        for part in ("model", "config", "last_result"):
            key = weights_key if weights_key is not None and part == "model" else part
            value = loaded.get(key)
            if not isinstance(value, Mapping):
                raise ValueError(f"'{key}' is {'absent' if value is None else 'no mapping'}, expected a mapping")
            parts[part] = value
        config = parts["config"]
        if any(not same_value(scalar_text(config.get(key)) or "", value) for key, value in condition.wanted):
            return Outcome(None, is_chosen=False)
        facts = _facts(config)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    outcome = network_outcome(name, parts["model"], len(content))
    return replace(
        outcome, facts=tuple(sorted(facts.items())), label=scalar_text(parts["last_result"].get(label)) or ""
    )


def _facts(config: Mapping) -> dict[str, object]:
    """Return the fields of `NetworkSpec` that a `config` tells.

    Raises:
        ValueError: a value is not of its type.
    """
    activation = config.get("activation")
    known = ACTIVATION_NAMES.get(activation.lower()) if isinstance(activation, str) else "none"
    if known is None or not isinstance(activation, str | None):
        raise ValueError(f"config: activation {str(activation)[:50]!r}: expected one of {', '.join(ACTIVATION_NAMES)}")
    facts: dict[str, object] = {"activation": known}
    for key, name in _LISTS.items():
        values = config.get(key)
        if not isinstance(values, list | tuple) or len(values) > _MOST_LAYERS:
            raise ValueError(f"config: '{key}' is a {type(values).__name__}, expected a list with a number a layer")
        low = {"stride": 1, "padding": 0, "residual": -1}[key]
        if not all(type(value) is int and low <= value < _MOST_LAYERS for value in values):
            raise ValueError(f"config: '{key}' holds others than whole numbers from {low}")
        if key != "residual" or any(value >= 0 for value in values):
            facts[name] = tuple(values)
    return facts


register_format(
    ZooFormat(
        name="CNN Wild Park",
        files="RUN/checkpoint_EPOCH/checkpoint.pt",
        recognize=_recognize,
        list=_list,
    )
)
