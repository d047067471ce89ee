"""The runners of the command line, by name; each is made with ``(args, config)`` and has ``train()`` and ``test()``."""

from importlib import import_module
from typing import Any

from score_core.errors import UsageError

__all__ = ["RUNNERS", "find_runner"]

RUNNERS = {
    "AnnealRunner": "ncsn.runners.anneal",
    "BaselineRunner": "ncsn.runners.baseline",
    "ScoreNetRunner": "ncsn.runners.scorenet",
    "ToyRunner": "ncsn.runners.toy",
}


def find_runner(name: str) -> Any:
    """The class of a runner.

    Raises: UsageError for an unknown name.
    """
    if name not in RUNNERS:
        raise UsageError(f"unknown --runner {name!r}; expected one of {', '.join(RUNNERS)}.")
    return getattr(import_module(RUNNERS[name]), name)
