"""Checks of types and shapes under the tests: `jaxtyping` on layers, groups and features, by `beartype`.

pyproject.toml names `shapes.checked` to the plugin of jaxtyping.
"""

from collections.abc import Callable
from typing import Self, get_args

from beartype import BeartypeConf, beartype

_CONF = BeartypeConf(is_pep484_tower=True)


def checked(function: Callable) -> Callable:
    """Return the function with its annotations checked at each call, all but `Self`.

    beartype knows `Self` in classes that it decorates; jaxtyping hands it their methods one by one.
    """
    hints = {
        name: hint for name, hint in function.__annotations__.items() if hint is not Self and Self not in get_args(hint)
    }
    function.__annotations__ = hints
    return beartype(function, conf=_CONF)
