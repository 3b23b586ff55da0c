"""Fields of configurations: one declaration gives flag, help, bounds, JSON form and part of a cell's key."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Setting:
    """Metadata of a field of a configuration, besides name, type and default."""

    help: str = ""
    """Help of its flag."""
    low: float | None = None
    """Least value; excluded if `above`."""
    high: float | None = None
    """Greatest value."""
    above: bool = False
    """True if `low` itself is excluded."""
    choices: Sequence[str] = ()
    """Values that are allowed; empty: all."""
    metavar: str | None = None
    """Name of the value in the help."""
    alias: str = ""
    """Another name of its flag; empty: none."""
    family: str = ""
    """Families of networks with which alone the field is read, with spaces between them; empty: all."""
    original: bool = True
    """True if files of all versions have the field; a missing field has its default."""
    key: str = "always"
    """Presence in keys of cells: always, never, changed (unless it is the default), or a field that enables it.

    The enabling field may be the field itself. Files of runs leave out the default of a field that is not enabled."""


NOT_IN_KEYS = {"setting": Setting(key="never")}
"""Metadata of a field that decides no number of a run, beyond rounding."""

PRIVATE = {"setting": Setting(original=False, key="never")}
"""Metadata of a field without a flag, which files may lack and keys leave out."""

COUNT: dict[str, Any] = {"low": 1, "high": 2**31 - 1}
"""Bounds of a number of things, at least one."""


def setting(default: Any, help: str = "", *, original: bool = False, key: str | None = None, **rules) -> Any:
    """Return a dataclass field with a `Setting`.

    Args:
        default: value where none is given.
        help: of its flag.
        original, key, rules: see `Setting`. By default, keys leave out the default of a field that is not original.
    """
    key = key or ("always" if original else "changed")
    return field(default=default, metadata={"setting": Setting(help, original=original, key=key, **rules)})


def setting_of(entry: Field) -> Setting:
    """Return the `Setting` of a field; that of a plain field is original."""
    return entry.metadata.get("setting", Setting())


def check_values(entries: Iterable[Field], values: Mapping[str, Any]) -> None:
    """Check the values that were given, by their fields' names.

    Raises:
        ValueError: a value is out of its bounds or none of its choices, or the field that enables it is False or None.
    """
    for entry in entries:
        rules, value = setting_of(entry), values.get(entry.name)
        if value is None:
            continue
        if not values.get(rules.key, True):
            true = " True" if values[rules.key] is False else ""
            raise ValueError(f"--{entry.name} {value}: requires --{rules.key}{true}")
        if rules.choices and value not in rules.choices:
            raise ValueError(f"--{entry.name} {value}: expected one of {', '.join(rules.choices)}")
        if rules.low is not None:
            numbers = value if isinstance(value, tuple) else (value,)
            high = math.inf if rules.high is None else rules.high
            above_low = (rules.low < number if rules.above else rules.low <= number for number in numbers)
            if not numbers or not all(above_low) or max(numbers) > high:
                bounds = f"{'above' if rules.above else 'at least'} {rules.low}"
                bounds += "" if rules.high is None else f" and at most {rules.high}"
                raise ValueError(f"--{entry.name} {value}: expected {bounds}")


def parse_values(
    kind: type, values: Mapping[str, Any], names: Iterable[str] | None = None, required: bool = True
) -> dict[str, Any]:
    """Return those of JSON's values that are fields of a dataclass, each of the type that its field declares.

    Args:
        kind: the dataclass.
        values: JSON's.
        names: names of the fields; None: all.
        required: True if original fields must be among the values.

    Raises:
        KeyError, TypeError: a field is missing, or a value is of another type.
    """
    types, parsed = get_type_hints(kind), {}
    for entry in fields(kind):
        is_wanted = names is None or entry.name in names
        if not is_wanted or (entry.name not in values and not (required and setting_of(entry).original)):
            continue
        value, declared = values[entry.name], types[entry.name]
        if get_origin(declared) is tuple and isinstance(value, list):
            value = tuple(value)
        if not isinstance(value, _kinds(declared)) or (isinstance(value, bool) and declared is not bool):
            raise TypeError(f"'{entry.name}' is {value!r}, expected {getattr(declared, '__name__', declared)}")
        parsed[entry.name] = value
    return parsed


def from_json(kind: type, values: Mapping[str, Any]):
    """Return a dataclass from JSON's values.

    Raises:
        KeyError, TypeError, ValueError: a field is missing, unknown, or not as it must be.
    """
    unknown = set(values) - {entry.name for entry in fields(kind)}
    if unknown:
        raise TypeError(f"'{min(unknown)}' is no field of {kind.__name__}")
    return kind(**parse_values(kind, values))


def _kinds(declared) -> tuple[type, ...]:
    """Return the types that a value of a declared type may have."""
    if isinstance(declared, TypeVar):
        return declared.__constraints__
    if isinstance(declared, UnionType):
        return tuple(kind for part in get_args(declared) for kind in _kinds(part))
    return (int, float) if declared is float else (get_origin(declared) or declared,)


def key_values(config) -> dict[str, Any]:
    """Return the values of a configuration that are part of its cell's key."""
    values = {}
    for entry in fields(config):
        rule, value = setting_of(entry).key, getattr(config, entry.name)
        is_in_key = {"always": True, "never": False, "changed": value != entry.default}
        if is_in_key[rule] if rule in is_in_key else getattr(config, rule):
            values[entry.name] = value
    return values
