"""Errors a user can act on, and how a command ends when one is raised.

Exit codes: 1 a run failed, 2 the command line or the data it names is wrong, 130 interrupted (128 + SIGINT).
"""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A failure whose message tells the user the cause, what was found and what to do; no traceback is shown for it.

    ``exit_code`` is the status a command ends with; a subclass sets its own.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line, the configuration or the data it names is wrong: nothing was run."""

    exit_code = 2


def run_main(main: Callable[[], int | None]) -> int:
    """Run a command and turn its outcome into an exit status: ``sys.exit(run_main(main))``.

    Arguments:
        main: the command; returns its exit status or None (0).

    Returns: the exit status. A :class:`UserError` is printed as ``error: ...`` on stderr and gives its ``exit_code``;
    Ctrl-C gives 130. Every other exception passes through with its traceback, ``SystemExit`` included.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
