"""``history.csv``: the losses of a run, one row a logged step, for plots and reports.

    step,training_loss,eval_loss,seconds
    0,8.1e+01,,0.8

A resumed run drops the rows that it will write again, and a last row cut short by a killed process.
"""

import csv
import os
import time
from pathlib import Path

from score_core.checkpoints.atomic import atomic_write

__all__ = ["History"]

_COLUMNS = ("step", "training_loss", "eval_loss", "seconds")


class History:
    """Appends rows to a history file.

    Arguments:
        path: the file; None writes nothing.
        resume_at: rows of this step and later are dropped.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, resume_at: int) -> None:
        self.path = None if path is None else Path(path)
        self._start = time.monotonic()
        if self.path is not None:
            kept = [row for row in read_history(self.path) if int(row["step"]) < resume_at]
            self._start -= max((float(row["seconds"]) for row in kept), default=0.0)
            lines = [",".join(_COLUMNS), *(",".join(row[name] for name in _COLUMNS) for row in kept)]
            atomic_write(self.path, ("\n".join(lines) + "\n").encode())

    def add(self, step: int, *, training_loss: float | None = None, eval_loss: float | None = None) -> None:
        """Writes one row."""
        if self.path is None:
            return
        seconds = time.monotonic() - self._start
        cells = [str(step), *("" if loss is None else f"{loss:.9g}" for loss in (training_loss, eval_loss))]
        with self.path.open("a") as file:
            file.write(",".join([*cells, f"{seconds:.1f}"]) + "\n")


def read_history(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The complete rows of a history file; none if there is no such file."""
    path = Path(path)
    if not path.exists():
        return []
    text = path.read_text()
    complete = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(complete.splitlines())
    return [row for row in rows if None not in row.values() and None not in row and row["step"].isdecimal()]
