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
from nfn_transformer.zoo.network_facts import config_facts
from nfn_transformer.zoo.runs import canonical_epoch
from nfn_transformer.zoo.sources import Source

_PATTERN = ROOT + r"(?P<run>[^/]+)/checkpoint_(?P<epoch>\d+)/checkpoint\.pt"

_LABEL = "test/acc"


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
        facts = config_facts(config)
    except ValueError as error:
        return Outcome(Fault(name, Reason.UNREADABLE, str(error)))
    outcome = network_outcome(name, parts["model"], len(content))
    return replace(
        outcome, facts=tuple(sorted(facts.items())), label=scalar_text(parts["last_result"].get(label)) or ""
    )


register_format(
    ZooFormat(
        name="CNN Wild Park",
        files="RUN/checkpoint_EPOCH/checkpoint.pt",
        recognize=_recognize,
        list=_list,
    )
)
