"""What every command begins with: the device it works on, the log it writes."""

from datetime import datetime
from pathlib import Path

import torch

from score_core.errors import UsageError

__all__ = ["Log", "choose_device"]


def choose_device(name: str) -> torch.device:
    """The device of ``--device``.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device={name}: {str(error).splitlines()[0]}") from error
    return device


class Log:
    """The original's ``log.txt``: local time, a tab, the message; also on the standard output."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, message: str) -> None:
        line = f"{datetime.now()}\t{message}"
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")
