"""The log of a run: the file ``stdout.txt`` and the console, one record a line in the original's layout

    LEVEL - FILE - TIME - MESSAGE

Records of the standard ``logging`` and of ``absl.logging`` both arrive. While a :class:`RunLog` is open it alone writes
root records to the console (absl's handler and others there are set aside), so that no line comes twice; a progress
bar is cleared before a line and drawn again after it.

parity: the original truncates ``stdout.txt`` when a run resumes; here lines are appended.
"""

import logging
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from score_core.errors import UserError

__all__ = ["LAYOUT", "RunLog"]

LAYOUT = "%(levelname)s - %(filename)s - %(asctime)s - %(message)s"


class RunLog:
    """Context manager that sends log records to a file and to stderr.

    Arguments:
        path: the file, opened for appending (folders made); None for the console only.
        level: the least severe level that is written.
        console: whether records also go to stderr.

    Raises (on entering): UserError if the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, level: int = logging.INFO, console: bool = True) -> None:
        self.path = None if path is None else Path(path)
        self.level = level
        self.console = console
        self._handlers: list[logging.Handler] = []
        self._set_aside: list[logging.Handler] = []
        self._root_level = logging.NOTSET
        self._absl_verbosity: int | None = None

    def __enter__(self) -> "RunLog":
        root = logging.getLogger()
        self._handlers = self._make_handlers()
        self._set_aside = [handler for handler in root.handlers if self._replaces(handler)]
        for handler in self._set_aside:
            root.removeHandler(handler)
        for handler in self._handlers:
            handler.setFormatter(logging.Formatter(LAYOUT))
            root.addHandler(handler)
        self._root_level = root.level
        root.setLevel(self.level)
        if absl_logging := _absl_logging():
            self._absl_verbosity = absl_logging.get_verbosity()
            absl_logging.set_verbosity(absl_logging.converter.standard_to_absl(self.level))
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()
        for handler in self._set_aside:
            root.addHandler(handler)
        root.setLevel(self._root_level)
        if self._absl_verbosity is not None and (absl_logging := _absl_logging()):
            absl_logging.set_verbosity(self._absl_verbosity)
        self._handlers, self._set_aside, self._absl_verbosity = [], [], None

    def _make_handlers(self) -> list[logging.Handler]:
        handlers: list[logging.Handler] = [_ConsoleHandler()] if self.console else []
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                handlers.append(logging.FileHandler(self.path, mode="a", encoding="utf-8"))
            except OSError as error:
                raise UserError(f"cannot open the log file {self.path}: {error.strerror}. Check the folder.") from error
        return handlers

    def _replaces(self, handler: logging.Handler) -> bool:
        """Whether ``handler`` writes where this log writes: to the console, or to the same file."""
        if isinstance(handler, logging.FileHandler):
            return self.path is not None and Path(handler.baseFilename) == Path(os.path.abspath(self.path))
        if not self.console:
            return False
        stream = getattr(handler, "stream", None)
        is_absl = type(handler).__module__.startswith("absl.")
        return is_absl or isinstance(handler, _ConsoleHandler) or stream in (sys.stderr, sys.stdout)


class _ConsoleHandler(logging.StreamHandler[Any]):
    """Writes to whatever ``sys.stderr`` is at the moment, above the progress bars that are drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "file_only", False):  # what a progress bar shows already
            return
        self.stream = sys.stderr
        tqdm = sys.modules.get("tqdm")
        if tqdm is None:
            super().emit(record)
            return
        with tqdm.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def _absl_logging() -> Any:
    """``absl.logging`` if the program uses it. Not imported here: absl sets up the root logger when it is."""
    return sys.modules.get("absl.logging")
