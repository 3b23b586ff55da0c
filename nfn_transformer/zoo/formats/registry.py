"""Registry of formats: how a zoo that others published is recognised, and what networks it lists."""

from collections.abc import Callable
from dataclasses import dataclass

from nfn_transformer.zoo.listing import Listing, ReadRequest
from nfn_transformer.zoo.sources import Source


@dataclass(frozen=True)
class ZooFormat:
    """Declaration of a format."""

    name: str
    """Name, for messages."""
    files: str
    """Files by which it is recognised, for messages."""
    recognize: Callable[[Source, str], bool]
    """Return whether a source holds a data set of the format."""
    list: Callable[[Source, ReadRequest], Listing]
    """Return the networks that a request chooses."""


FORMATS: dict[str, ZooFormat] = {}
"""Formats by name; each is asked in turn."""


def register_format(zoo_format: ZooFormat) -> None:
    """Add a format."""
    FORMATS[zoo_format.name] = zoo_format
