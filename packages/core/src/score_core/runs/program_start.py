"""The start of an NCSN or NCSNv2 program: folders that are safe to use, consent before something is overwritten.

Both programs keep the runs of an experiment below one root (``exp``, ``run``) under names that the user gives. A name
leads to a folder strictly inside its root; nothing is removed without an answer at the terminal or the flag that stands
for it; where there is no terminal, nothing is asked.
"""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from score_core.checkpoints.list_checkpoint import ResumePoint
from score_core.errors import UsageError, UserError
from score_core.runs.config_record import compare_configs
from score_core.runs.namespace_config import to_dict

__all__ = [
    "DEFAULT_SEED",
    "announce",
    "banner",
    "choose_seed",
    "confirm",
    "folder_inside",
    "log_level",
    "remove_folder",
    "require_same_config",
]

_logger = logging.getLogger(__name__)

DEFAULT_SEED = 1234


def log_level(name: str) -> int:
    """The level of ``logging`` that ``--verbose`` names, in upper or lower case.

    Raises: UsageError for another name.
    """
    level = getattr(logging, name.upper(), None)
    if not isinstance(level, int) or isinstance(level, bool):
        raise UsageError(f"--verbose {name}: no such level; expected debug, info, warning, error or critical.")
    return level


def folder_inside(root: Path, name: str, flag: str) -> Path:
    """The folder ``name`` below ``root``; ``flag`` is the option that gave the name.

    Raises: UsageError if the name is empty, leads out of ``root``, or is ``root`` itself.
    """
    folder = root / name
    if not name.strip() or not folder.resolve().is_relative_to(root.resolve()) or folder.resolve() == root.resolve():
        raise UsageError(f"{flag} {name!r} must name a folder below {root}; expected a name such as 'cifar10'.")
    return folder


def confirm(question: str, *, cure: str, yes: bool = False, ask: Callable[[str], str] | None = None) -> bool:
    """Whether the user agrees.

    Arguments:
        question: what is asked, with the consequence; the answer is yes only for ``y`` or ``Y``.
        cure: what to do where nobody can be asked.
        yes: agreed already, by a flag.
        ask: reads an answer, for tests; the terminal otherwise.

    Raises: UsageError if there is no terminal to ask at.
    """
    if yes:
        return True
    if ask is None:
        if not sys.stdin.isatty():
            raise UsageError(f"{question.strip()} There is no terminal to answer at: {cure}.")
        ask = input
    try:
        return ask(f"{question} (y/N) ").strip().upper() == "Y"
    except EOFError:
        return False


def remove_folder(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there; of a link, the link.

    Raises: UserError if something in it cannot be removed.
    """
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename or folder}: {error.strerror}. Choose another name.") from error


def banner(text: str) -> None:
    """Print the configuration between two rulers, as both programs do."""
    print(">" * 80)
    print(text.rstrip("\n"))
    print("<" * 80, flush=True)


def announce(device: Any, log_path: Path, comment: str) -> None:
    """The first log lines of both programs."""
    _logger.info("Using device: %s", device)
    _logger.info("Writing log file to %s", log_path)
    _logger.info("Exp instance id = %d", os.getpid())
    _logger.info("Exp comment = %s", comment)
    _logger.info("Config =")


def choose_seed(given: int | None, point: ResumePoint | None, log_path: Path) -> int:
    """The seed given, that of the run that goes on, or the default.

    Raises: UsageError if the two differ.
    """
    if point is None:
        return DEFAULT_SEED if given is None else given
    if given not in (None, point.seed):
        raise UsageError(f"--seed {given}: the run in {log_path} was started with {point.seed}. Leave it out.")
    return point.seed


def require_same_config(
    before: argparse.Namespace, now: argparse.Namespace, free: Collection[str], record: Path
) -> None:
    """Refuse to go on with settings that the steps before were not made with.

    Arguments:
        before, now: the configuration of the run, and that of its continuation.
        free: dotted keys and patterns that may change.
        record: the file that ``before`` was read from, in the run's log folder.

    Raises: UsageError listing the changes.
    """
    changes = [change for change in compare_configs(to_dict(before), to_dict(now)) if not change.matches(free)]
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        raise UsageError(
            f"{record.parent} was trained with another configuration ({record}):\n{lines}\n"
            "Put the old values back, or train under another --doc."
        )
