"""Running a command: its exit status, and one line for a user's mistake."""

import sys
from collections.abc import Callable, Sequence

from nfn_transformer.errors import UserError

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def run_command(command: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process.

    The exit status is the command's own, 2 on a user's mistake, 1 where the system fails, 130 on Ctrl-C.
    """
    try:
        status = command(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = EXIT_USER_ERROR
    except OSError as error:  # a full disk, a closed pipe: nothing that a traceback would explain
        print(f"error: {error}", file=sys.stderr)
        status = EXIT_FAILURE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)
