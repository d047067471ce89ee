"""Stopping in good order: the step is finished, a checkpoint written, and the exit status says which signal it was.

    with GracefulStop() as stop:
        for step in steps:
            train(step)
            if stop.requested:
                save()
                stop.exit()              # 143 after SIGTERM, 130 after SIGINT (128 + signal number)

SIGTERM is what Slurm, Kubernetes and spot machines send before they kill; SIGINT is Ctrl-C. The second Ctrl-C does not
wait for the step: it raises KeyboardInterrupt at once.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any, NoReturn

__all__ = ["GracefulStop", "StopRequested"]


class StopRequested(SystemExit):
    """The run ended early because a signal asked for it; ``code`` is 128 + the signal's number."""


class GracefulStop:
    """Context manager that turns the first SIGTERM or SIGINT into a flag and restores the old handlers on leaving.

    Outside the main thread, where Python allows no signal handlers, it never asks for a stop.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first signal that asked for a stop."""
        self._interrupts = 0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal asked for a stop."""
        return self.signal is not None

    def request(self, number: int) -> None:
        """Ask for a stop as if signal ``number`` had come here: it came to another process of the same run."""
        if self.signal is None:
            self.signal = signal.Signals(number)

    def exit(self) -> NoReturn:
        """End the program with the status of the signal.

        Raises: StopRequested.
        """
        if self.signal is None:
            raise RuntimeError("exit() was called although no signal asked for a stop: test `requested` first")
        raise StopRequested(128 + self.signal)

    def __enter__(self) -> "GracefulStop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed by Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = signal.Signals(number)
            message = f"\n{self.signal.name}: finishing the step and saving; Ctrl-C (again) stops at once\n"
            # Not print: the handler may run in the middle of another print.
            os.write(2, message.encode())
