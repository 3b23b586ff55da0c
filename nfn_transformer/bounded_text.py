"""JSON and YAML of files that anyone may have written, with bounds of size, depth, digits and aliases."""

import json
import math
import re
from collections import Counter
from typing import Any

import yaml

MOST_JSON = 256 * 2**20
"""Characters of a JSON text: the split of a zoo of a million networks has about as many."""

MOST_YAML = 256 * 2**10
"""Characters of a YAML text, which PyYAML reads in a few seconds."""

MOST_DEPTH = 32
"""Levels of lists and mappings."""

MOST_DIGITS = 20
"""Digits of a whole number: those of 64 bits, and a sign."""

_MOST_YAML_NODES = 100_000
_BREAKS = re.compile(r"\s")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is no JSON, repeats a key, or is larger, deeper or longer in a number than any file of
            this project.
    """
    if len(text) > MOST_JSON:
        raise ValueError(f"{len(text)} characters, expected at most {MOST_JSON}")
    try:
        value = json.loads(text, parse_int=_whole, parse_constant=_constant, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"lists in lists of more than {MOST_DEPTH} levels") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        inner: list = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("a number beyond those of 64 bits")
        if not inner:
            return value
        level = inner
    raise ValueError(f"lists in lists of more than {MOST_DEPTH} levels")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, expected at most {MOST_DIGITS}")
    return int(digits)


def _constant(name: str) -> float:
    raise ValueError(f"{name}, expected a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"repeated key '{repeated}'")
    return values


class _TextLoader(yaml.BaseLoader):
    """Loader that builds text, lists and mappings alone, and refuses repeated keys."""

    def construct_mapping(self, node, deep=False):
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key '{key.value}'", node.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text: text, lists and mappings from text.

    Raises:
        ValueError: the text is no YAML, repeats a key, or is larger or deeper than any file of this project.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"{len(text)} characters, expected at most {MOST_YAML}")
    try:
        _check_events(text)
        return yaml.load(text, Loader=_TextLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _check_events(text: str) -> None:
    """Check depth, and the number of nodes with all aliases written out, before anything is built.

    Raises:
        ValueError: there are too many.
    """
    sizes: dict[str, int] = {}  # anchor -> nodes below it
    open_nodes: list[list] = [["", 0]]  # anchor and nodes of each list and mapping around
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            if len(open_nodes) > MOST_DEPTH:
                raise ValueError(f"lists in lists of more than {MOST_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent | yaml.ScalarEvent | yaml.AliasEvent):
            anchor, count = (event.anchor, 1) if isinstance(event, yaml.NodeEvent) else open_nodes.pop()
            if isinstance(event, yaml.ScalarEvent) and not _BREAKS.sub("", event.value).isprintable():
                raise ValueError("a text with control characters")
            if isinstance(event, yaml.AliasEvent):
                count = sizes.get(anchor, 1)
            elif anchor:
                sizes[anchor] = count
            open_nodes[-1][1] += count
            if open_nodes[-1][1] > _MOST_YAML_NODES:
                raise ValueError(f"more than {_MOST_YAML_NODES} values")
