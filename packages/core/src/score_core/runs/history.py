"""``history.csv``: the losses of a run, one row a logged loss with the other kind left empty, for plots and reports.

    step,training_loss,eval_loss,seconds
    0,1.03125,,0.9
    0,,1.01220,1.1

A resumed run drops the rows that it will write again; a last row cut short by a killed process does not count.
"""

import csv
import os
import time
from pathlib import Path
from typing import NamedTuple

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UserError

__all__ = ["History", "HistoryRow", "read_history"]

_COLUMNS = ("step", "training_loss", "eval_loss", "seconds")


class HistoryRow(NamedTuple):
    """One row; a loss that was not measured is None."""

    step: int
    training_loss: float | None
    eval_loss: float | None
    seconds: float

    def line(self) -> str:
        losses = ("" if loss is None else f"{loss:.9g}" for loss in (self.training_loss, self.eval_loss))
        return ",".join([str(self.step), *losses, f"{self.seconds:.1f}"]) + "\n"


class History:
    """Appends rows to a history file.

    Arguments:
        path: the file; None writes nothing.
        resume_at: rows of this step and later are dropped.
        evaluate_at: the same for rows of the held-out loss; ``resume_at`` by default. A run that was stopped between an
            update and its held-out loss resumes after the one and before the other.

    Raises: UserError if there is a file that is not a history.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, resume_at: int, evaluate_at: int | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._start = time.monotonic()
        if self.path is not None:
            ends = {False: resume_at, True: resume_at if evaluate_at is None else evaluate_at}
            kept = [row for row in read_history(self.path) if row.step < ends[row.eval_loss is not None]]
            self._start -= max((row.seconds for row in kept), default=0.0)
            atomic_write(self.path, (",".join(_COLUMNS) + "\n" + "".join(row.line() for row in kept)).encode())

    def add(self, step: int, *, training_loss: float | None = None, eval_loss: float | None = None) -> None:
        """Writes one row."""
        if self.path is not None:
            row = HistoryRow(step, training_loss, eval_loss, time.monotonic() - self._start)
            with self.path.open("a") as file:
                file.write(row.line())


def read_history(path: str | os.PathLike[str]) -> list[HistoryRow]:
    """The complete rows of a history file; none if there is no such file.

    Raises: UserError naming the line that cannot be read.
    """
    path = Path(path)
    if not path.exists():
        return []
    text = path.read_text("utf-8", errors="replace")
    complete = text[: text.rfind("\n") + 1]
    header, *lines = csv.reader(complete.splitlines()) if complete else [list(_COLUMNS)]
    if tuple(header) != _COLUMNS:
        raise UserError(f"{path}: the columns are {','.join(header)}, expected {','.join(_COLUMNS)}. Move it away.")
    rows: list[HistoryRow] = []
    for number, line in enumerate(lines, start=2):
        try:
            step, training_loss, eval_loss, seconds = line
            rows.append(HistoryRow(int(step), _number(training_loss), _number(eval_loss), float(seconds)))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}, expected {','.join(_COLUMNS)}.") from error
    return rows


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
