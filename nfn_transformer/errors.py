"""Errors that a user can mend: commands print them on stderr and end with exit status 2."""


class UserError(Exception):
    """Bad input from the user; the message names the file, key, flag or value, and what was expected."""


class SpecError(UserError):
    """Weights or a state dict with unexpected shapes."""


class ZooError(UserError):
    """A zoo, or a file of a zoo, that cannot be read."""


class RunError(UserError):
    """A run directory that is missing, incomplete, or does not fit the request."""
