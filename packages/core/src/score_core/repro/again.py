"""``python -m score_core.repro.again FLAG FILE MODULE ...``: runs a program, with FLAG if FILE is there.

For programs that go on with a run only if they are told to, and refuse to if there is none:

    python -m score_core.repro.again --resume_training DIR/logs/cell/checkpoint.pth ncsnv2 --config ...
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from score_core.errors import UsageError, run_main


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line ``arguments`` (default: the process's own); returns the exit status."""
    return run_main(lambda: _main(list(sys.argv[1:] if arguments is None else arguments)))


def command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The module to run, and its arguments.

    Raises:
        UsageError: FLAG, FILE or MODULE is missing.
    """
    if len(arguments) < 3:
        raise UsageError("usage: python -m score_core.repro.again FLAG FILE MODULE [ARGUMENT ...]")
    flag, file, module, *rest = arguments
    return module, [*rest, flag] if Path(file).exists() else rest


def _main(arguments: list[str]) -> None:
    module, rest = command(arguments)
    sys.argv[1:] = rest
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.exit(main())
