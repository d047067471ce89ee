"""How far a loop has come: a bar on a terminal, now and then a log line everywhere else.

Both show rate, time left and the values given. Values are shown as they are: pass Python numbers, and only when they
are at hand, since fetching one from a device would make the device wait.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

__all__ = ["Progress"]

_logger = logging.getLogger(__name__)


class Progress:
    """Context manager that reports the progress of a loop.

    Arguments:
        total: number of steps, or None if it is not known.
        initial: the step a resumed loop starts at.
        description: what is being done ("train").
        unit: what a step is ("step", "image").
        seconds_between_lines: how often a log line is written where there is no terminal.
        stream: where the bar would be drawn; stderr by default. A bar is drawn only if this is a terminal.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        total: int | None,
        *,
        initial: int = 0,
        description: str = "",
        unit: str = "step",
        seconds_between_lines: float = 60.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total
        self.initial = initial
        self.step = initial
        self.description = description
        self.unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._seconds_between_lines = seconds_between_lines
        self._clock = clock
        self._values: dict[str, float] = {}
        self._bar: Any = None
        self._start = self._last_line = 0.0
        self._last_step = initial

    def __enter__(self) -> "Progress":
        self._start = self._last_line = self._clock()
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total,
                initial=self.initial,
                desc=self.description or None,
                unit=self.unit,
                file=self._stream,
                dynamic_ncols=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self.step != self._last_step:
            self._write_line()

    @property
    def on_terminal(self) -> bool:
        """Whether a bar is drawn."""
        return self._bar is not None

    def update(self, steps: int = 1, **values: float) -> None:
        """Count ``steps`` more; ``values`` (plain numbers) replace those shown so far under the same names."""
        self.step += steps
        self._values.update(values)
        if self._bar is not None:
            if values:
                self._bar.set_postfix(self._values, refresh=False)
            self._bar.update(steps)
        elif self._clock() - self._last_line >= self._seconds_between_lines:
            self._write_line()

    def _write_line(self) -> None:
        now = self._clock()
        rate = (self.step - self.initial) / max(now - self._start, 1e-9)
        parts = [f"{self.unit} {self.step}"]
        if self.total is not None:
            parts = [f"{self.unit} {self.step}/{self.total} ({100 * self.step / max(self.total, 1):.1f}%)"]
        parts.append(f"{rate:.3g} {self.unit}/s")
        if self.total is not None and rate > 0:
            parts.append(f"{_duration((self.total - self.step) / rate)} left")
        parts += [f"{name} {value:.5g}" for name, value in self._values.items()]
        _logger.info("%s%s", f"{self.description}: " if self.description else "", ", ".join(parts))
        self._last_line, self._last_step = now, self.step


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
