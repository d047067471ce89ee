"""The work directory of a run: its folders, an exclusive lock, and the configuration it was started with.

    <workdir>/config.json             configuration of the last start
    <workdir>/.<role>.lock            locked while a process works here in that role
    <workdir>/.<role>.holder.json     who that is: process, host, since when, command

The lock belongs to the process, not to the file: it is gone when the process is, however it died. Training and
evaluation may work in one directory at the same time, hence the role.
"""

import json
import logging
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UserError
from score_core.runs.config_record import Change, compare_configs, plain_config
from score_core.runs.provenance import command_line, utc_now

__all__ = ["ConfigChangedError", "Workdir", "WorkdirError"]

_logger = logging.getLogger(__name__)
_SHOWN_CHANGES = 30


class WorkdirError(UserError):
    """The work directory cannot be used; the message says who holds it or what is wrong with it."""


class ConfigChangedError(WorkdirError):
    """The work directory was started with another configuration; the message lists the differences."""

    exit_code = 2


class Workdir:
    """A work directory, used as a context manager that holds its lock.

    Arguments:
        path: the directory; made on entering, with its parents.
        role: what is done here ("train", "eval", ...); two processes in one role exclude each other.
        exclusive: False for the further processes of one distributed run, which neither lock nor write the record.

    Raises (on entering): WorkdirError if another process holds it, or it cannot be made or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, role: str = "run", exclusive: bool = True) -> None:
        self.path = Path(path)
        self.role = role
        self.exclusive = exclusive
        self._lock: Any = None
        self._owner = 0

    def __enter__(self) -> "Workdir":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.exclusive:
                self._acquire()
        except OSError as error:
            raise WorkdirError(
                f"cannot use {self.path} as a work directory: {error.strerror}. Choose another one."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        # A forked child leaves through here too, but the lock is its parent's.
        if self._lock is not None and self._owner == os.getpid():
            with suppress(OSError):
                self._holder_file.unlink()
            self._lock.release()
            self._lock = None

    def folder(self, *names: str) -> Path:
        """A folder inside the work directory, made if missing.

        Raises: WorkdirError if it cannot be made.
        """
        folder = self.path.joinpath(*names)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkdirError(f"cannot make the folder {folder}: {error.strerror}. Check what is there.") from error
        return folder

    def record_config(
        self, config: Any, *, ignore: Collection[str] = (), may_grow: Collection[str] = (), force: bool = False
    ) -> list[Change]:
        """Record the configuration at the first start, compare with the record at every other.

        Arguments:
            config: mapping or ``ConfigDict`` (see :func:`score_core.runs.config_record.plain_config`).
            ignore: dotted keys and patterns that may change freely (``eval.*``, ``training.log_freq``).
            may_grow: dotted keys that may become larger (``training.n_iters``).
            force: accept every change.

        Returns: the accepted changes (empty at the first start). They are logged and the record is brought up to date.

        Raises: ConfigChangedError listing the changes that are not allowed; WorkdirError if the record is damaged.
        """
        file = self.path / "config.json"
        plain = plain_config(config)
        changes = compare_configs(_read_record(file), plain) if file.exists() else []
        refused = [
            change
            for change in changes
            if not change.matches(ignore) and not (change.matches(may_grow) and change.grows())
        ]
        if refused and not force:
            raise ConfigChangedError(self._explain_changes(refused))
        for change in changes:
            _logger.info("configuration changed since the last start: %s", change)
        if self.exclusive and (changes or not file.exists()):
            atomic_write(file, (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode())
        return changes

    @property
    def _holder_file(self) -> Path:
        return self.path / f".{self.role}.holder.json"

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / f".{self.role}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise WorkdirError(self._explain_lock()) from None
        self._lock, self._owner = lock, os.getpid()
        holder = {"pid": self._owner, "host": socket.gethostname(), "since": utc_now(), "command": command_line()}
        try:
            atomic_write(self._holder_file, json.dumps(holder).encode())
        except BaseException:
            self.__exit__()
            raise

    def _explain_lock(self) -> str:
        try:
            holder = json.loads(self._holder_file.read_bytes())
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']} ({' '.join(holder['command'])})"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"  # it has just locked and not yet written who it is
        return (
            f"the work directory {self.path} is in use for {self.role}: {who}. "
            "Wait for it, stop it, or choose another work directory."
        )

    def _explain_changes(self, refused: list[Change]) -> str:
        lines = [f"  {change}" for change in refused[:_SHOWN_CHANGES]]
        if len(refused) > _SHOWN_CHANGES:
            lines.append(f"  ... and {len(refused) - _SHOWN_CHANGES} more")
        return (
            f"the work directory {self.path} was started with another configuration:\n"
            + "\n".join(lines)
            + "\nPut the old values back, choose another work directory, or force the change."
        )


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkdirError(f"cannot read {file}: {error}. Restore it, or move it away to record anew.") from error
    if not isinstance(record, dict):
        raise WorkdirError(f"{file} does not hold a configuration. Restore it, or move it away to record anew.")
    return record
