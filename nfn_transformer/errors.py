"""Errors that a user can mend: commands print them on stderr and end with exit status 2."""


class UserError(Exception):
    """Bad input from the user; the message names the file, key, flag or value, and what was expected."""


class SpecError(UserError):
    """Weights or a state dict do not have the shapes that were expected."""


class ZooError(UserError):
    """A zoo, or a file of it, is not what the project can read."""


class RunError(UserError):
    """A run directory is missing, incomplete, or does not fit what is asked of it."""
