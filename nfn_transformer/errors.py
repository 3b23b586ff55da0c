"""Errors that a user can mend: a command prints them on stderr and ends with exit status 2."""


class UserError(Exception):
    """Bad input; the message names the file, key, flag or value, what was expected and what it got."""


class SpecError(UserError):
    """Weights or a state dict with unexpected shapes."""


class ZooError(UserError):
    """A zoo, or a file of a zoo, that cannot be read."""


class RunError(UserError):
    """A run directory that is missing, incomplete, or does not fit the request."""


def type_of(value: object) -> str:
    """Return the type of a value for an error message, and the shape of a tensor: `a Tensor of shape (2, 3)`."""
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + ("" if shape is None else f" of shape {tuple(shape)}")
