"""Libraries that single features need: the extras of the package, imported when they are used."""

from collections.abc import Iterator
from contextlib import contextmanager

from nfn_transformer.errors import UserError


class MissingLibraryError(UserError):
    """A library that a feature needs is not installed."""


@contextmanager
def extra(name: str, feature: str) -> Iterator[None]:
    """Import libraries of an extra in the body of a `with` statement.

    Args:
        name: of the extra, as in pyproject.toml.
        feature: of the package that needs the libraries, for the message.

    Raises:
        MissingLibraryError: a library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "nfn_transformer":
            raise
        raise MissingLibraryError(f'{feature} requires {error.name}: pip install "nfn-transformer[{name}]"') from None
